/**
 * A claim without room for a second QEMU: its memory limit is raised while the guest runs (an in-place resize of the pod), and the update is
 * tried once more. Where the cluster, the node or a quota does not allow that, what was asked for is taken back, and the update fails. Pure.
 */
import { formatBytes } from "../../../crds/quantity.ts";
import { SECOND_QEMU_BYTES } from "../../../crds/second-qemu.ts";
import type { MigrationStatus } from "../../../crds/migration.ts";
import type { ClaimMemory, ClaimSeen, Problem } from "../../instance/facts.ts";
import { attemptOf, isUnwanted } from "../attempt.ts";
import type { Cause, MoveFacts, MovePlan } from "../plan.ts";
import { afterFailure, waitFor } from "../plan-steps.ts";

/** A kubelet resizes within its next look at the pod, or says that it cannot. */
const GIVEN_MS = 30_000;

type Growth = NonNullable<MigrationStatus["claimGrowth"]>;

const growing = ({ claim, from, to }: { claim: ClaimSeen; from: number; to: number }): Problem => ({
  reason: "GrowingClaim",
  message: `the claim ${claim.name} has no room for a second QEMU: its memory limit is raised from ${formatBytes(from)} to ${formatBytes(to)}`,
});

/** At most once in a Migration. The claim keeps what it was given, so that the next update finds room. */
export function planRoom(facts: MoveFacts, cause: Cause): MovePlan {
  const { migration, sourceClaim: claim } = facts;
  const { claimGrowth: growth } = migration.status ?? {};
  const memory = claim?.memory;
  if (claim === undefined || memory === undefined || (growth !== undefined && growth.attempt !== attemptOf(migration)))
    return afterFailure(facts, cause);
  if (growth === undefined) return isUnwanted(migration) ? afterFailure(facts, cause) : begin(facts, claim, memory);
  if (growth.refused !== undefined) return takeBack(facts, cause, { claim, memory, growth, refused: growth.refused });
  return goOn(facts, cause, { claim, memory, growth });
}

function begin({ migration }: MoveFacts, claim: ClaimSeen, { limitBytes: from }: ClaimMemory): MovePlan {
  const to = from + SECOND_QEMU_BYTES;
  return {
    step: { do: "note" },
    ...growing({ claim, from, to }),
    set: { claimGrowth: { attempt: attemptOf(migration), fromBytes: from, toBytes: to } },
  };
}

interface Grown {
  claim: ClaimSeen;
  memory: ClaimMemory;
  growth: Growth;
}

function goOn(facts: MoveFacts, cause: Cause, { claim, memory, growth }: Grown): MovePlan {
  const { migration, refused, settings } = facts;
  const { fromBytes: from, toBytes: to } = growth;
  const words = growing({ claim, from, to });
  const isRefused = (why: string): MovePlan => ({
    step: { do: "note" },
    ...words,
    set: { claimGrowth: { ...growth, refused: why } },
  });
  if (memory.limitBytes >= to && (memory.givenBytes ?? 0) >= to) {
    // The one more try that the room was made for, however many others there may be.
    const retries = Math.max(settings.retries, attemptOf(migration));
    return afterFailure({ ...facts, settings: { ...settings, retries } }, { ...cause, retryable: true });
  }
  if (isUnwanted(migration)) return isRefused("it was cancelled");
  if (refused !== undefined) return isRefused(refused.message);
  if (memory.limitBytes < to) return { step: { do: "resize-claim", claim, toBytes: to }, ...words };
  if (memory.refused?.reason === "Infeasible") return isRefused(`the kubelet refuses it: ${memory.refused.message}`);
  const why =
    memory.refused === undefined ? "the kubelet has not given it" : `the kubelet has yet to give it: ${memory.refused.message}`;
  return waitFor(facts, words, { forMs: GIVEN_MS, late: () => isRefused(why) });
}

/** The claim is as large as before, and the update has failed. */
function takeBack(facts: MoveFacts, cause: Cause, { claim, memory, growth, refused }: Grown & { refused: string }): MovePlan {
  const message = `${cause.message}; the claim could not be given more: ${refused}`;
  const isAsked = memory.limitBytes > growth.fromBytes;
  if (isAsked && !claim.deleting && facts.refused === undefined)
    return { step: { do: "resize-claim", claim, toBytes: growth.fromBytes }, reason: cause.reason, message };
  return afterFailure(facts, { ...cause, message });
}
