import { expect, test } from "vitest";
import { confined, exporter, MARKER, markerContent, progressOf, sender } from "./programs.ts";

const secret = { identity: "move-1", key: "ab" };
const place = { address: "10.0.0.2", port: 49_200 };

test("the exporter opens what it inherits, and listens where it is told", () => {
  const line = exporter(["root", MARKER], { ...place, secret }).join(" ");
  expect(line).toContain("driver=file,node-name=file1,filename=/proc/self/fd/4,locking=off,");
  expect(line).toContain("type=nbd,id=export0,node-name=disk0,name=root,writable=on");
  expect(line).toContain("addr.type=inet,addr.host=10.0.0.2,addr.port=49200,max-connections=4,tls-creds=tls");
  expect(line).not.toContain("ab ");
  expect(exporter(["root"], { ...place, secret: undefined }).join(" ")).not.toContain("tls");
});

test("the sender takes the limit, and keeps the key off its command line", () => {
  const line = sender("root", { ...place, secret, maxBytesPerSecond: 1_000 }).join(" ");
  expect(line).toContain("-r 1000");
  expect(line).toContain("username=move-1");
  expect(line).toContain("export=root,tls-creds=tls");
  expect(sender("root", { ...place, secret: undefined, maxBytesPerSecond: undefined }).join(" ")).not.toMatch(/tls| -r /);
});

test("either runs as the guest's user, without rights, and no longer than the agent", () => {
  const [command, args] = confined("/root", { uid: 7, gid: 8 }, 10, ["qemu-img"]);
  expect(command).toBe("unshare");
  expect(args).toEqual(
    expect.arrayContaining(["--root=/root", "--reuid=7", "--regid=8", "--bounding-set=-all", "--pdeathsig=KILL"]),
  );
  expect(args.at(-1)).toBe("qemu-img");
});

test.each([
  ["    (0.00/100%)\r    (12.50/100%)\r", 0.125],
  ["    (100.00/100%)\r\n", 1],
  ["warning", undefined],
])("progress of %j", (text, share) => expect(progressOf(text)).toBe(share));

test("the marker is as long as a sector", () => expect(markerContent()).toHaveLength(512));
