import { describe, expect, it } from "vitest";
import { describeStep } from "../steps.ts";
import { planPool, planPoolRemoval, type PoolSeen } from "./plan.ts";

const gib = (n: number): number => n * 1024 ** 3;
const FILE = "/var/lib/drover/loops/local.img";
const room = { sizeBytes: gib(100), freeBytes: gib(60) };
const nothing: PoolSeen = { file: null, leftover: false, noted: "nothing", loop: null, mount: null, directories: false, room };
const file = { sizeBytes: gib(8), ours: true, fileSystemBytes: gib(8) };
const loop = { device: "/dev/loop3", sizeBytes: gib(8), autoclear: true };
const mount = { device: "/dev/loop3", visible: true, readOnly: false };
const healthy: PoolSeen = { file, leftover: false, noted: "same", loop, mount, directories: true, room };

const make = ["make-filesystem", "publish-file", "note", "attach", "mount", "autoclear", "make-directories"];

const rows: [string, Partial<PoolSeen>, number | undefined, string[]][] = [
  ["as it should be", healthy, 8, []],
  ["as it should be, no size asked", healthy, undefined, []],
  ["nothing there", nothing, 8, ["create-file 8Gi", ...make]],
  ["nothing there, no size asked: a fifth", nothing, undefined, ["create-file 20Gi", ...make]],
  ["nothing there but a half-made file", { ...nothing, leftover: true }, 8, ["discard-leftover", "create-file 8Gi", ...make]],
  ["published, then killed", { ...nothing, file }, 8, ["note", "attach", "mount", "autoclear", "make-directories"]],
  ["noted, then killed", { ...nothing, file, noted: "same" }, 8, ["attach", "mount", "autoclear", "make-directories"]],
  ["before a reboot", { ...healthy, loop: null, mount: null }, 8, ["attach", "mount", "autoclear", "make-directories"]],
  [
    "attached, then killed",
    { ...healthy, loop: { ...loop, autoclear: false }, mount: null },
    8,
    ["mount", "autoclear", "make-directories"],
  ],
  ["mounted, then killed", { ...healthy, loop: { ...loop, autoclear: false } }, 8, ["autoclear"]],
  ["mounted without directories", { ...healthy, directories: false }, 8, ["make-directories"]],
  ["unmounted behind our back, loop still there", { ...healthy, mount: null }, 8, ["mount", "autoclear", "make-directories"]],
  ["asked to grow", healthy, 9, ["extend-file 8Gi -> 9Gi", "refresh-loop", "grow-filesystem"]],
  ["extended, then killed", { ...healthy, file: { ...file, sizeBytes: gib(9) } }, 9, ["refresh-loop", "grow-filesystem"]],
  [
    "refreshed, then killed",
    { ...healthy, file: { ...file, sizeBytes: gib(9) }, loop: { ...loop, sizeBytes: gib(9) } },
    9,
    ["grow-filesystem"],
  ],
  [
    "asked to grow while down",
    { ...healthy, loop: null, mount: null },
    9,
    ["extend-file 8Gi -> 9Gi", "attach", "mount", "autoclear", "grow-filesystem", "make-directories"],
  ],
  ["asked to shrink", healthy, 6, ["refuse: a pool cannot shrink (8Gi -> 6Gi); make a new pool and migrate to it"]],
  [
    "asked to shrink while down: it comes up all the same",
    { ...healthy, loop: null, mount: null },
    6,
    [
      "attach",
      "mount",
      "autoclear",
      "make-directories",
      "refuse: a pool cannot shrink (8Gi -> 6Gi); make a new pool and migrate to it",
    ],
  ],
  [
    "no room for a new one",
    { ...nothing, room: { sizeBytes: gib(100), freeBytes: gib(6) } },
    8,
    [
      `refuse: 6Gi is free on the file system of ${FILE}, but a size of 8Gi needs 8Gi there and 1Gi left over for the node; free space, or ask for at most 5120Mi in source.loop.size`,
    ],
  ],
  [
    "no room to grow: it stays as it is, and comes up",
    { ...healthy, mount: null, room: { sizeBytes: gib(100), freeBytes: gib(3) } },
    12,
    [
      "mount",
      "autoclear",
      "make-directories",
      `refuse: 3Gi is free on the file system of ${FILE}, but a size of 12Gi needs 4Gi there and 1Gi left over for the node; free space, or ask for at most 10240Mi in source.loop.size`,
    ],
  ],
  [
    "a file of someone else",
    { ...nothing, file: { ...file, ours: false } },
    8,
    [
      `refuse: ${FILE} exists and does not hold the file system of pool local; nothing was changed in it: move it away, or use another name for the pool`,
    ],
  ],
  [
    "the file deleted under the mount",
    { ...healthy, file: null, loop: null },
    8,
    [
      `refuse: ${FILE}, the file of pool local, was deleted while the pool is mounted: its disks end with the next restart of the node; copy them away, then delete and make again`,
    ],
  ],
  [
    "the file deleted while down: never made anew in silence",
    { ...nothing, noted: "same" },
    8,
    [
      `refuse: ${FILE}, the file of pool local, is gone: put it back, or delete the instances that had disks in it and the pool, and make them again`,
    ],
  ],
  [
    "another pool's file put in its place",
    { ...healthy, noted: "other", mount: null, loop: null },
    8,
    [
      `refuse: ${FILE} holds another file system than the one that pool local had on this node: put it back, or delete the instances that had disks in it and the pool, and make them again`,
    ],
  ],
  [
    "something else mounted there",
    { ...healthy, mount: { ...mount, device: "/dev/sdb1" } },
    8,
    ["refuse: /dev/sdb1 is mounted where pool local belongs; unmount it"],
  ],
  [
    "not seen in the pod",
    { ...healthy, mount: { ...mount, visible: false } },
    8,
    [
      "refuse: pool local is mounted on the node but not seen in the agent's pod; its volume for Drover's directory must be mounted with mountPropagation: Bidirectional",
    ],
  ],
  [
    "read-only after an error",
    { ...healthy, mount: { ...mount, readOnly: true } },
    8,
    [
      "refuse: the file system of pool local became read-only after an error; the node's kernel log tells why; stop its instances, unmount it, and it is mounted again",
    ],
  ],
];

describe("planPool", () => {
  it.each(rows)("%s", (_, seen, size, steps) => {
    const want = { name: "local", sizeBytes: size === undefined ? undefined : gib(size), file: FILE };
    expect(planPool({ ...nothing, ...seen }, want).map(describeStep)).toEqual(steps);
  });

  it("asks for whole sectors, so that a size that is none does not grow for ever", () => {
    const want = { name: "local", sizeBytes: gib(8) - 1, file: FILE };
    expect(planPool(healthy, want)).toEqual([]);
  });
});

describe("planPoolRemoval", () => {
  it.each([
    ["nothing left", nothing, []],
    ["in use", healthy, ["unmount", "detach", "delete"]],
    ["loop left behind", { ...healthy, mount: null }, ["detach", "delete"]],
    ["file left behind", { ...healthy, mount: null, loop: null }, ["delete"]],
    ["half-made", { ...nothing, leftover: true }, ["delete"]],
    ["a file of someone else", { ...nothing, file: { ...file, ours: false }, loop }, []],
    ["a mount of someone else", { ...healthy, mount: { ...mount, device: "/dev/sdb1" } }, ["detach", "delete"]],
    ["file deleted under the mount", { ...healthy, file: null, loop: null }, ["unmount", "detach", "delete"]],
    [
      "another pool's file in its place: only forgotten",
      { ...healthy, noted: "other" as const, mount: null, loop: null },
      ["delete"],
    ],
    ["only remembered", { ...nothing, noted: "same" as const }, ["delete"]],
  ] as [string, PoolSeen, string[]][])("%s", (_, seen, steps) => expect(planPoolRemoval(seen).map(describeStep)).toEqual(steps));
});
