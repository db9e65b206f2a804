import { expect, test } from "vitest";
import type { Migration } from "../../../crds/migration.ts";
import { broken, failureOf, reasonToLeave, SWITCH_MS, type LeaveFacts } from "./leave.ts";

const migration = (spec: object = {}, target?: object, metadata: object = {}): Migration =>
  ({ metadata, spec, status: { target } }) as unknown as Migration;
const facts = (more: Partial<LeaveFacts> = {}): LeaveFacts => ({
  attempt: 2,
  qemu: "copying",
  migration: migration(),
  failed: undefined,
  allowedForMs: undefined,
  ...more,
});
const cancelled = migration({ cancel: true });
const failed = { reason: "DiskCopyFailed", message: "", retryable: true };

test.each([
  ["all is well", facts(), "stays"],
  ["the guest has ended", facts({ qemu: "gone" }), "GuestEnded"],
  ["copying failed", facts({ failed }), "DiskCopyFailed"],
  ["it is cancelled", facts({ migration: cancelled }), "Cancelled"],
  ["it is deleted", facts({ migration: migration({}, undefined, { deletionTimestamp: "x" }) }), "Cancelled"],
  ["it is cancelled when the guest stands still", facts({ migration: cancelled, qemu: "held" }), "stays"],
  ["it is cancelled when all is sent", facts({ migration: cancelled, qemu: "complete" }), "stays"],
  ["the target gave up", facts({ migration: migration({}, { attempt: 2, state: "GivenUp" }) }), "TargetGaveUp"],
  ["the target of the attempt before gave up", facts({ migration: migration({}, { attempt: 1, state: "Released" }) }), "stays"],
  ["it may be stopped, for long enough yet", facts({ allowedForMs: SWITCH_MS - 1 }), "stays"],
  ["it could not be stopped", facts({ allowedForMs: SWITCH_MS }), "NotConverging"],
])("%s", (_, given, want) => {
  expect(reasonToLeave(given)?.reason ?? "stays").toBe(want);
});

test("what broke is told by whoever is to blame", () => {
  expect(broken("held", undefined)).toMatchObject({
    reason: "MoveBroken",
    retryable: true,
    message: expect.stringContaining("QEMU"),
  });
  expect(broken("copying", "silent for 5 s").message).toBe("the agents lost each other: silent for 5 s");
  expect(broken("gone", "silent for 5 s").message).toBe("the guest ended while it was moved");
});

test("QEMU tells of failures, and of much else", () => {
  expect(failureOf({ kind: "failed", message: "no" })).toMatchObject({ reason: "MemoryCopyFailed", message: "no" });
  expect(failureOf({ kind: "disk-failed", disk: "root", message: "EIO" })).toMatchObject({ reason: "DiskCopyFailed" });
  expect(failureOf({ kind: "state" })).toBeUndefined();
});
