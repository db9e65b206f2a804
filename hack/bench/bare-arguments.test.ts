import { expect, test } from "vitest";
import { bareArguments } from "./bare-arguments.ts";

const words = (...lines: string[]): string[] => lines.flatMap((line) => line.split(" "));

const guest = words(
  "/usr/bin/qemu-system-x86_64 -nodefaults -m size=268435456b -no-user-config",
  "-chardev socket,id=qmp,fd=3,server=on,wait=off -mon chardev=qmp,mode=control",
  "-chardev socket,id=qga,fd=5,server=on,wait=off",
  "-add-fd fd=6,set=1 -chardev file,id=console,path=/dev/fdset/1,append=on",
  "-blockdev driver=file,node-name=file-root,filename=/disks/local/root.raw,cache.direct=on",
  "-netdev tap,id=net-eth0,ifname=d0123456789abcd,script=no",
);

test("the machine stays, and what Drover handed it goes", () => {
  expect(bareArguments(guest, "bench0")).toEqual(
    words(
      "-nodefaults -m size=268435456b -no-user-config",
      "-chardev stdio,id=qmp -mon chardev=qmp,mode=control",
      "-chardev null,id=qga",
      "-chardev file,id=console,path=/tmp/console.log",
      "-blockdev driver=file,node-name=file-root,filename=/disk/root.raw,cache.direct=on",
      "-netdev tap,id=net-eth0,ifname=bench0,script=no",
    ),
  );
});
