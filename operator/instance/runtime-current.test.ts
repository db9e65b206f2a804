import { expect, it } from "vitest";
import type { ActiveMove } from "../migration/active.ts";
import { runtimeCurrent, type RuntimeFacts } from "./runtime-current.ts";

const guest = { state: "Running" as const, runtimeVersion: "r1", qemuVersion: "10.0.2", machineType: "pc-q35-10.0" };
const current = { version: "r2", qemuVersion: "10.0.13", machineTypes: ["pc-q35-10.0"] };
const move: ActiveMove = {
  name: "up",
  uid: "m",
  cold: false,
  inPlace: true,
  state: "Copying",
  sourceNode: "n1",
  targetNode: "n1",
  sourceClaim: { name: "c", uid: "c1" },
  targetClaim: { name: "c", uid: "c1" },
  released: false,
  undecided: undefined,
  disks: [],
};
const both = "its guest runs in runtime r1 (QEMU 10.0.2), and the current one of node n1 is runtime r2 (QEMU 10.0.13); ";
const wayOut =
  "move it to another node (a Migration with mode: Live), or restart it (a new spec.restartedAt): it then runs in the current runtime";

it.each<[string, Partial<RuntimeFacts>, string, string, string]>([
  ["no guest", { guest: undefined }, "Unknown", "NotRunning", "known when it runs"],
  ["stopped", { guest: { ...guest, state: "Stopped" } }, "Unknown", "NotRunning", "known when it runs"],
  [
    "runtime unknown",
    { guest: { state: "Running" } },
    "Unknown",
    "RuntimeUnknown",
    "the agent of node n1 has not said which runtime its guest runs in",
  ],
  [
    "node's unknown",
    { current: undefined },
    "Unknown",
    "RuntimesUnknown",
    "the agent of node n1 has not said which runtime is current there",
  ],
  [
    "current",
    { guest: { ...guest, runtimeVersion: "r2", qemuVersion: "10.0.13" } },
    "True",
    "Current",
    "its guest runs in runtime r2 (QEMU 10.0.13), the current one of node n1",
  ],
  ["outdated", {}, "False", "Outdated", `${both}a Migration with mode: InPlace replaces its QEMU while it runs`],
  ["being updated", { move }, "False", "Updating", `${both}its QEMU is being replaced by the Migration up`],
  [
    "an update that was given up",
    { move: { ...move, state: "Source" } },
    "False",
    "Outdated",
    `${both}a Migration with mode: InPlace replaces its QEMU while it runs`,
  ],
  [
    "being moved",
    { move: { ...move, inPlace: false } },
    "False",
    "Outdated",
    `${both}a Migration with mode: InPlace replaces its QEMU while it runs`,
  ],
  [
    "blocked",
    { guest: { ...guest, updateBlockers: ["huge pages"] } },
    "False",
    "UpdateBlocked",
    `${both}its QEMU cannot be replaced in place: huge pages; ${wayOut}`,
  ],
  [
    "its machine type is unknown there",
    { current: { ...current, machineTypes: [] } },
    "False",
    "UpdateBlocked",
    `${both}runtime r2 (QEMU 10.0.13) does not know its machine type pc-q35-10.0; ${wayOut}`,
  ],
])("%s", (_, more, status, reason, message) =>
  expect(runtimeCurrent({ guest, node: "n1", current, move: undefined, ...more })).toEqual({ status, reason, message }),
);
