import { expect, test } from "vitest";
import { tapName } from "../../../crds/names.ts";
import type { Migration } from "../../../crds/migration.ts";
import type { Pod } from "../../../kube/index.ts";
import type { MoveNote } from "../notes.ts";
import { claimTrouble, missingOf } from "./place.ts";

const UID = "0ae0e6ea-5b3f-4f6b-9d0c-0e6f6d1c8d3b";
const note: MoveNote = {
  migration: { namespace: "a", name: "m", uid: "u" },
  instance: { namespace: "a", name: "web", uid: UID },
  attempt: 1,
  role: "target",
  mark: "none",
  since: 0,
  nics: ["eth0", "eth1"],
};
const migration = { status: { targetClaim: { name: "c2", uid: "claim-2" } } } as unknown as Migration;
const pod = (status: object, more: object = {}): Pod =>
  ({ metadata: { uid: "claim-2", name: "c2", ...more }, status }) as unknown as Pod;
const running = pod({ phase: "Running", containerStatuses: [{ ready: true }] });
const installed = (...names: string[]) => ({ installed: (tap: string) => names.some((name) => tapName(UID, name) === tap) });
const both = installed("eth0", "eth1");

test.each([
  ["all is there", both, [running], /^nothing$/],
  ["no port is installed", installed(), [running], /eth0, eth1/],
  ["one of two ports is not installed", installed("eth0"), [running], /install eth1 on/],
  ["the holder is not there", both, [], /holder of its claim c2/],
  ["the holder's image is pulled", both, [pod({ phase: "Pending" })], /holder of its claim c2/],
  ["the holder has fallen", both, [pod({ phase: "Running", containerStatuses: [{ ready: false }] })], /holder of its claim c2/],
  ["another claim's holder runs", both, [pod({ phase: "Running" }, { uid: "other" })], /holder of its claim c2/],
])("%s", (_, nics, pods, want) => {
  expect(missingOf(note, migration, { nics, pods })?.message ?? "nothing").toMatch(want);
});

test.each([
  ["runs", [running], undefined],
  ["is not known here yet", [], undefined],
  ["is being deleted", [pod({}, { deletionTimestamp: "2026-01-01T00:00:00Z" })], "its claim c2 on this node is being deleted"],
  ["has ended", [pod({ phase: "Failed" })], "its claim c2 on this node has ended"],
])("a claim that %s", (_, pods, want) => {
  expect(claimTrouble(migration, pods)).toBe(want);
});
