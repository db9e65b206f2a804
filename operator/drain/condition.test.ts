import { expect, it } from "vitest";
import { drainingVerdict } from "./condition.ts";
import type { DrainPlan } from "./plan.ts";

const plan: DrainPlan = {
  step: { do: "wait" },
  reason: "Moving",
  message: "is moved",
  progress: "CopyingMemory 43 %",
  stuck: false,
  overdue: false,
};
const had = {
  type: "Draining",
  status: "True",
  reason: "Moving",
  message: "",
  lastTransitionTime: "",
  observedGeneration: 1,
} as const;

it.each([
  ["never asked", undefined, undefined, undefined],
  ["asked", plan, undefined, { status: "True", reason: "Moving", message: "it was asked to leave its node: it is moved" }],
  [
    "for too long",
    { ...plan, overdue: true },
    had,
    { status: "True", reason: "DrainOverdue", message: "it was asked to leave its node: it is moved" },
  ],
  ["no more", undefined, had, { status: "False", reason: "NotAsked", message: "nobody asks it to leave its node" }],
])("%s", (_, now, before, expected) => expect(drainingVerdict(now, before)).toEqual(expected));
