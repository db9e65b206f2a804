import { describe, expect, test } from "vitest";
import { SECOND_QEMU_BYTES } from "../../../../crds/second-qemu.ts";
import { errorText } from "../../../errors.ts";
import { updateBlockers, type UpdateFacts } from "./blockers.ts";
import { requireRoom } from "./room.ts";

const able: UpdateFacts = {
  qemuVersion: "10.0.13",
  args: ["-machine", "pc-q35-10.0,memory-backend=ram0,aux-ram-share=on", "-netdev", "tap,id=net-eth0,ifname=d0"],
  blockers: [],
};

test.each<[string, Partial<UpdateFacts>, string[]]>([
  ["nothing", {}, []],
  ["a QEMU before 10", { qemuVersion: "9.2.4" }, ["QEMU 9.2.4 cannot hand a guest over; 10.0 and newer can"]],
  ["a QEMU of no known version", { qemuVersion: undefined }, [expect.stringContaining("unknown version") as string]],
  [
    "several queues",
    { args: [...able.args, "-device", "virtio-net-pci,id=nic-eth0,mq=on,vectors=6"] },
    ["a NIC has more than one queue"],
  ],
  ["memory of its own", { args: ["-machine", "pc-q35-10.0"] }, ["its memory cannot be handed over to another process"]],
  ["what QEMU says", { blockers: ["virtio-x: no"] }, ["virtio-x: no"]],
])("what keeps a guest from another QEMU: %s", (_, change, reasons) =>
  expect(updateBlockers({ ...able, ...change })).toEqual(reasons),
);

describe("room for a second QEMU in a claim", () => {
  const MIB = 1024 ** 2;
  test.each<[string, number | undefined, number, boolean]>([
    ["no limit", undefined, 900 * MIB, true],
    ["just enough", 704 * MIB, 704 * MIB - SECOND_QEMU_BYTES, true],
    ["too little", 704 * MIB, 705 * MIB - SECOND_QEMU_BYTES, false],
    ["more used than allowed", 704 * MIB, 705 * MIB, false],
  ])("%s", (_, limitBytes, usedBytes, fits) => {
    let said = "";
    try {
      requireRoom({ limitBytes, usedBytes });
    } catch (error) {
      said = errorText(error);
    }
    expect(said).toMatch(fits ? /^$/ : /needs 64 MiB in the claim for a moment, and of its 704 MiB only \d+ MiB are free/);
  });
});
