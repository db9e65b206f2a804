/** The moment in which a guest is about to stand still, stands still, or has just come to run elsewhere. */
import { recordOf } from "./attempt.ts";
import { isCold } from "./cold.ts";
import { isInPlace } from "./in-place/in-place.ts";
import { isLocal } from "./local.ts";
import type { MoveFacts, MovePlan } from "./plan.ts";

/**
 * From the right to stop the guest until the next record, Done. An idle guest stops some 20 ms after that, one that writes all the time some
 * 300 ms (medians of the bench), and Done comes some 170 ms later; what is longer is a move that waits, and people should see that it does.
 */
export const QUIET_MS = 1000;

/** A stopped guest, or one whose disk alone goes to another pool of its node, does not stand still for it. */
const standsStill = ({ migration }: Pick<MoveFacts, "migration">): boolean =>
  !isCold(migration) && (isInPlace(migration) || !isLocal(migration.status));

/**
 * For how long yet nothing need be written, ms. Status, event, and all who watch them would take processor time from the guest and from those who
 * move it, in the very moments that count, to tell what the next record, or the end of this time, tells as well. Whatever is to be decided is
 * not held up. Pure, but for the clock that is asked for by a function.
 */
export function quietFor(
  facts: Pick<MoveFacts, "migration" | "lasted">,
  { step, reason }: Pick<MovePlan, "step" | "reason">,
): number {
  const { state, attempt } = recordOf(facts.migration) ?? {};
  const isQuiet = state === "Handover" && reason === "SwitchingOver" && step.do === "wait" && standsStill(facts);
  const lasted = facts.lasted("SwitchingOver", isQuiet ? `${attempt ?? 0}` : undefined);
  return isQuiet ? Math.max(0, QUIET_MS - lasted) : 0;
}
