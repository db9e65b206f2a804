/** Why the API server made no claim for a move, in words that say what to change. Pure. */
import { ApiError } from "../../kube/index.ts";
import type { Problem } from "../instance/facts.ts";
import { QuotaError } from "./surge.ts";

const CAUSES: readonly (readonly [RegExp, string, string])[] = [
  [
    /exceeded quota|insufficient quota/,
    "QuotaExceeded",
    "the namespace's ResourceQuota has no room for it; free some of it, or raise the quota",
  ],
  [
    /failed quota|must specify/,
    "QuotaUnfit",
    "a ResourceQuota of the namespace counts what a claim does not state; a LimitRange can give it a default",
  ],
  [
    /(maximum|minimum) [a-z-]+ usage per (Container|Pod)|max limit to request ratio/i,
    "LimitRange",
    "a LimitRange of the namespace forbids its size; change the LimitRange",
  ],
  [
    /PriorityClass/i,
    "PriorityClassMissing",
    "its PriorityClass is not there or not allowed; make it, or name another in spec.placement.priorityClassName",
  ],
  [/violates PodSecurity/, "PodSecurity", "the namespace's Pod Security level refuses it; it needs nothing but restricted"],
];

/** Undefined for what no user can mend: that is to be thrown on. */
export function refusedClaim(error: unknown, claim: string): Problem | undefined {
  if (error instanceof QuotaError) return error.problem;
  if (!(error instanceof ApiError) || (error.code !== 403 && error.code !== 422 && error.code !== 400)) return undefined;
  const [, reason = "ClaimRefused", hint] = CAUSES.find(([pattern]) => pattern.test(error.message)) ?? [];
  const told = hint === undefined ? "" : `; ${hint}`;
  return { reason, message: `the API server refused its claim ${claim}: ${error.message}${told}` };
}
