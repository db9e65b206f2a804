import { describe, expect, test } from "vitest";
import type { Handover, Migration, MigrationStatus } from "../../crds/migration.ts";
import { instance } from "../instance/fixtures.ts";
import type { MoveNote } from "./notes.ts";
import { planSide, verdictOfVanished } from "./plan.ts";
import { newest } from "./record.ts";

const migration = (status: Partial<MigrationStatus>, mode: "Live" | "Cold" | "InPlace" = "Live"): Migration => ({
  apiVersion: "drover.dev/v1alpha1",
  kind: "Migration",
  metadata: { name: "m", namespace: "default", uid: "m1", resourceVersion: "1", generation: 1, creationTimestamp: "" },
  spec: { instance: "web", mode },
  status: { instanceUid: "uid-1", sourceNode: "n1", targetNode: "n2", ...status },
});
const note = (over: Partial<MoveNote> = {}): MoveNote => ({
  migration: { namespace: "default", name: "m", uid: "m1" },
  instance: { namespace: "default", name: "web", uid: "uid-1" },
  attempt: 1,
  role: "source",
  mark: "none",
  since: 0,
  nics: [],
  ...over,
});
const record = (state: Handover["state"], attempt = 1): Handover => ({ attempt, state });

describe("planSide", () => {
  test.each<[string, string, Migration, MoveNote | undefined, string]>([
    ["no record yet", "n1", migration({}), undefined, "nothing"],
    ["another node's", "n3", migration({ handover: record("Copying") }), undefined, "nothing"],
    ["the source begins", "n1", migration({ handover: record("Copying") }), undefined, "begin source 1"],
    ["the target begins", "n2", migration({ handover: record("Copying", 2) }), undefined, "begin target 2"],
    ["an earlier move comes first", "n2", migration({ handover: record("Copying") }), note(), "nothing"],
    ["a cold one, that leaves", "n1", migration({ handover: record("Copying") }, "Cold"), undefined, "begin source 1"],
    [
      "of a node to itself: a disk changes its pool",
      "n1",
      migration({ targetNode: "n1", handover: record("Copying") }),
      undefined,
      "begin local 1",
    ],
    [
      "in place: the guest gets another QEMU",
      "n1",
      migration({ targetNode: "n1", handover: record("Copying", 2) }, "InPlace"),
      undefined,
      "begin update 2",
    ],
    [
      "in place, given up before it began",
      "n1",
      migration({ targetNode: "n1", handover: record("Source") }, "InPlace"),
      undefined,
      "say source GivenUp 1",
    ],
    ["given up before it began", "n1", migration({ handover: record("Source") }), undefined, "say source GivenUp 1"],
    ["given up, and nothing is here", "n2", migration({ handover: record("Source") }), undefined, "say target Released 1"],
    [
      "said already",
      "n2",
      migration({ handover: record("Source"), target: { attempt: 1, state: "Released" } }),
      undefined,
      "nothing",
    ],
    [
      "said of another attempt",
      "n2",
      migration({ handover: record("Source", 2), target: { attempt: 1, state: "Released" } }),
      undefined,
      "say target Released 2",
    ],
    [
      "it has left",
      "n1",
      migration({ handover: record("Done"), source: { attempt: 1, state: "Completed" } }),
      undefined,
      "say source Released 1",
    ],
    ["it has come", "n2", migration({ handover: record("Done") }), undefined, "say target Running 1"],
    ["from a node to itself", "n1", migration({ targetNode: "n1", handover: record("Copying") }), undefined, "begin local 1"],
    [
      "from a node to itself, of another node",
      "n2",
      migration({ targetNode: "n1", handover: record("Copying") }),
      undefined,
      "nothing",
    ],
    [
      "given up at both ends",
      "n1",
      migration({ targetNode: "n1", handover: record("Source") }),
      undefined,
      "say source GivenUp 1",
    ],
    [
      "given up at both ends, of which one has said so",
      "n1",
      migration({ targetNode: "n1", handover: record("Source"), source: { attempt: 1, state: "GivenUp" } }),
      undefined,
      "say target Released 1",
    ],
    [
      "done, and both ends have said so",
      "n1",
      migration({
        targetNode: "n1",
        handover: record("Done"),
        source: { attempt: 1, state: "Released" },
        target: { attempt: 1, state: "Running" },
      }),
      undefined,
      "nothing",
    ],
  ])("%s", (_, node, object, noted, expected) => {
    const plan = planSide(object, node, noted);
    const words =
      plan.do === "begin"
        ? ["begin", plan.role, plan.attempt]
        : plan.do === "say"
          ? ["say", plan.said.role, plan.said.words.state, plan.said.words.attempt]
          : ["nothing"];
    expect(words.join(" ")).toBe(expected);
  });
});

describe("a Migration deleted by force", () => {
  const here = instance({ status: { nodeName: "n1" } });
  const there = instance({ status: { nodeName: "n2" } });
  const goes = { disk: "root", sizeBytes: 1, from: "local", to: "fast", claimUid: "c2" };
  const moved = instance({ status: { nodeName: "n1", disks: [{ name: "root", pool: "fast" }] } });
  test.each<[string, Partial<MoveNote>, ReturnType<typeof instance> | undefined, string, string | undefined]>([
    ["the source has promised nothing", {}, here, "n1", "Source"],
    ["the source gives up", { mark: "GivingUp" }, here, "n1", "Source"],
    ["the source is gone, and the instance is at the target", { mark: "Gone" }, there, "n1", "Done"],
    ["the source is gone, and so is the instance", { mark: "Gone" }, undefined, "n1", "Done"],
    ["the source is gone, and nobody knows whether the target ran", { mark: "Gone" }, here, "n1", undefined],
    ["the target never ran", { role: "target" }, here, "n2", "Source"],
    ["the target refused", { role: "target", mark: "Refusing" }, undefined, "n2", "Source"],
    ["the target ran, and it is its instance", { role: "target", mark: "Ran" }, there, "n2", "Done"],
    ["the target ran, and the instance still names the source", { role: "target", mark: "Ran" }, here, "n2", undefined],
    ["a guest that waits for another QEMU", { role: "update" }, here, "n1", "Source"],
    ["a guest that has another QEMU", { role: "update", mark: "Switched" }, here, "n1", "Done"],
    ["a disk on its way to another pool", { role: "local", goes }, here, "n1", "Source"],
    [
      "a disk that is in its new pool, of which the instance knows",
      { role: "local", mark: "Pivoting", goes },
      moved,
      "n1",
      "Done",
    ],
    [
      "a disk that is in its new pool, and the instance says the old one",
      { role: "local", mark: "Pivoting", goes },
      here,
      "n1",
      undefined,
    ],
    ["a disk that is in its new pool, of no instance", { role: "local", mark: "Pivoting", goes }, undefined, "n1", "Done"],
  ])("%s", (_, over, object, node, verdict) => {
    expect(verdictOfVanished(note(over), object, node)).toBe(verdict);
  });
});

test.each<[Handover | undefined, Handover | undefined, string]>([
  [undefined, record("Copying"), "1 Copying"],
  [record("Handover"), record("Copying"), "1 Handover"],
  [record("Source"), record("Handover"), "1 Source"],
  [record("Target"), record("Source"), "1 Source"],
  [record("Source"), record("Copying", 2), "2 Copying"],
  [record("Copying", 2), record("Source"), "2 Copying"],
])("of two readings of a record the newer one counts: %o, %o", (a, b, expected) => {
  const found = newest(a, b);
  expect(`${found?.attempt} ${found?.state}`).toBe(expected);
});
