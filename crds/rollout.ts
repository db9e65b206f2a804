import { z } from "zod";
import { conditions, doc, type KindDefinition, type Resource } from "./schema.ts";

const rolloutSpec = z
  .object({
    paused: z.boolean().optional().meta(doc("true begins no further update; those under way go on.")),
    resumedAt: z
      .string()
      .max(64)
      .optional()
      .meta(doc("Any new value, usually the time, goes on after a failed update has stopped it.")),
  })
  .meta(doc("How it is to go on."));

const count = (description: string) => z.int().meta(doc(description));

export const rolloutStatus = z
  .object({
    observedGeneration: z.int().optional().meta(doc("The generation that this status speaks of.")),
    phase: z
      .enum(["Waiting", "Rolling", "Stopped", "Complete"])
      .optional()
      .meta(
        doc(
          "Waiting: paused, outside its window, left to people, or held up; Rolling: instances are being updated; Stopped: an update failed; Complete: nothing is left to be done.",
        ),
      ),
    reason: z.string().optional().meta(doc("One CamelCase word for why it is in this phase.")),
    message: z.string().max(4096).optional().meta(doc("Why, for a person.")),
    progress: z.string().optional().meta(doc("Updated instances of all, such as 37/120.")),
    updated: count("Instances that run in this runtime, on nodes whose current one it is.").optional(),
    total: count("Instances that run on nodes whose current runtime it is.").optional(),
    failed: count("Updates that failed since it last began to go on.").optional(),
    runtime: z.string().optional().meta(doc("The runtime's version.")),
    resumedAt: z.string().optional().meta(doc("The spec.resumedAt that was acted on.")),
    since: z
      .string()
      .optional()
      .meta({ ...doc("When it last began to go on; what failed before does not stop it."), format: "date-time" }),
    conditions: conditions.optional(),
  })
  .meta(doc("What is known of it. Written by Drover."));

export type RolloutSpec = z.infer<typeof rolloutSpec>;
export type RolloutStatus = z.infer<typeof rolloutStatus>;
export type Rollout = Resource<"Rollout", RolloutSpec, RolloutStatus>;

export const rolloutKind: KindDefinition = {
  kind: "Rollout",
  plural: "rollouts",
  singular: "rollout",
  shortNames: ["drollout"],
  scope: "Cluster",
  description:
    "A new runtime on its way under all running guests, one after the other. Made by Drover; named as the runtime's version.",
  spec: rolloutSpec,
  status: rolloutStatus,
  columns: [
    { name: "Phase", type: "string", jsonPath: ".status.phase" },
    { name: "Progress", type: "string", jsonPath: ".status.progress" },
    { name: "Failed", type: "integer", jsonPath: ".status.failed" },
    { name: "Reason", type: "string", jsonPath: ".status.reason" },
    { name: "Age", type: "date", jsonPath: ".metadata.creationTimestamp" },
    { name: "Message", type: "string", jsonPath: ".status.message", priority: 1 },
  ],
};
