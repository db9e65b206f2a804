/** AdmissionReview, as much of it as an eviction's has, and the answer to it. Pure. */
import { z } from "zod";

const schema = z.object({
  apiVersion: z.literal("admission.k8s.io/v1"),
  kind: z.literal("AdmissionReview"),
  request: z.object({
    uid: z.string().min(1).max(128),
    operation: z.string(),
    resource: z.object({ group: z.string(), resource: z.string() }),
    subResource: z.string().optional(),
    name: z.string().min(1).max(253),
    namespace: z.string().min(1).max(253),
    dryRun: z.boolean().nullish(),
    object: z
      .object({
        deleteOptions: z.object({ gracePeriodSeconds: z.number().nullish(), dryRun: z.array(z.string()).nullish() }).nullish(),
      })
      .nullish(),
  }),
});

export interface EvictionAsked {
  /** Of the review: the answer carries it. */
  uid: string;
  namespace: string;
  /** The pod. */
  name: string;
  /** Nothing may be changed for it. */
  dryRun: boolean;
  graceSeconds: number | undefined;
}

/** Throws when the text is no review of an eviction. */
export function parseReview(text: string): EvictionAsked {
  const { request } = schema.parse(JSON.parse(text));
  const { operation, resource, subResource } = request;
  if (operation !== "CREATE" || resource.group !== "" || resource.resource !== "pods" || subResource !== "eviction") {
    throw new Error(`this webhook judges CREATE of pods/eviction, not ${operation} of ${resource.resource}/${subResource ?? ""}`);
  }
  const options = request.object?.deleteOptions;
  return {
    uid: request.uid,
    namespace: request.namespace,
    name: request.name,
    // `kubectl drain --dry-run=server` says so in the eviction's body.
    dryRun: request.dryRun === true || options?.dryRun?.includes("All") === true,
    graceSeconds: options?.gracePeriodSeconds ?? undefined,
  };
}

/** `refusal` undefined: allowed. 429 is what makes `kubectl drain`, and every other evictor, ask again. */
export const answerReview = (uid: string, refusal: string | undefined): object => ({
  apiVersion: "admission.k8s.io/v1",
  kind: "AdmissionReview",
  response:
    refusal === undefined
      ? { uid, allowed: true }
      : {
          uid,
          allowed: false,
          status: { status: "Failure", code: 429, reason: "TooManyRequests", message: refusal },
        },
});
