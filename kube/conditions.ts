/** Conditions and status: pure functions, so that what is written is decided in one place and only when it differs. */
import { isDeepStrictEqual } from "node:util";
import type { Condition } from "./types.ts";

/**
 * The list with this condition in it. lastTransitionTime moves only when `status` changed; a condition that says the same as
 * before is returned as it was, in the same place, so that comparing the lists tells whether anything is to be written.
 */
export const setCondition = (
  list: readonly Condition[] | undefined,
  condition: Omit<Condition, "lastTransitionTime">,
  now: Date,
): Condition[] => {
  const before = list?.find((one) => one.type === condition.type);
  const lastTransitionTime = before?.status === condition.status ? before.lastTransitionTime : timestamp(now);
  const after: Condition = { ...condition, lastTransitionTime };
  if (after.observedGeneration === undefined) delete after.observedGeneration;
  if (!before) return [...(list ?? []), after];
  return (list ?? []).map((one) => (one === before ? after : one));
};

/** The condition of this type. */
export const findCondition = <C extends { type: string }>(list: readonly C[] | undefined, type: string): C | undefined =>
  list?.find((one) => one.type === type);

/** Whether the condition of this type is there and True. */
export const isTrue = (list: readonly { type: string; status: string }[] | undefined, type: string): boolean =>
  findCondition(list, type)?.status === "True";

/** Kubernetes keeps whole seconds; finer ones would come back different and be written again and again. */
const timestamp = (now: Date): string => `${now.toISOString().slice(0, 19)}Z`;

/** Equality on what would be written as JSON: a field that is undefined is a field that is not there. */
export const sameStatus = (a: unknown, b: unknown): boolean => isDeepStrictEqual(plain(a), plain(b));

const plain = (value: unknown): unknown => (value === undefined ? undefined : JSON.parse(JSON.stringify(value)));
