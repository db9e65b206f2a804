/** Pieces shared by all kinds: quantities, conditions, and how a zod schema carries what only a CRD knows. */
import { z } from "zod";

/** A CEL rule of the API server; `message` tells the user what to change. */
export interface CelRule {
  rule: string;
  message?: string;
  messageExpression?: string;
  reason?: "FieldValueInvalid" | "FieldValueForbidden" | "FieldValueRequired" | "FieldValueDuplicate";
  fieldPath?: string;
  optionalOldSelf?: boolean;
}

/** Meta for a schema: description (for `kubectl explain`) and CEL rules. */
export const doc = (description: string, ...rules: CelRule[]) =>
  rules.length === 0 ? { description } : { description, "x-kubernetes-validations": rules };

/** Meta for a list that server-side apply merges by keys. */
export const mapList = (description: string, keys: string[], ...rules: CelRule[]) => ({
  ...doc(description, ...rules),
  "x-kubernetes-list-type": "map",
  "x-kubernetes-list-map-keys": keys,
});

export const dnsLabel = (max: number, description: string) =>
  z
    .string()
    .min(1)
    .max(max)
    .regex(/^[a-z0-9]([-a-z0-9]*[a-z0-9])?$/)
    .meta(doc(description));

/** A Kubernetes quantity of bytes, such as 512Mi or 8Gi. */
export const bytes = (description: string, ...rules: CelRule[]) =>
  z
    .string()
    .max(20)
    .regex(/^[0-9]+(\.[0-9]+)?(Ki|Mi|Gi|Ti|Pi|k|M|G|T|P)?$/)
    .meta(doc(description, ...rules));

export const condition = z.object({
  type: z.string().max(316).meta(doc("What the condition is about, such as Ready.")),
  status: z.enum(["True", "False", "Unknown"]).meta(doc("Whether it holds.")),
  reason: z.string().min(1).max(1024).meta(doc("One CamelCase word for why.")),
  message: z.string().max(32768).meta(doc("A sentence for a person: what is the matter, and what to do.")),
  lastTransitionTime: z.string().meta({ ...doc("When status last changed."), format: "date-time" }),
  observedGeneration: z.int().min(0).optional().meta(doc("The generation of the object that this was said of.")),
});
export type Condition = z.infer<typeof condition>;

export const conditions = z
  .array(condition)
  .max(16)
  .meta(mapList("What holds of this object now; Ready sums it up.", ["type"]));

/** Metadata as the API server returns it; only what Drover reads. */
export interface ObjectMeta {
  name: string;
  namespace?: string;
  uid: string;
  resourceVersion: string;
  generation: number;
  creationTimestamp: string;
  deletionTimestamp?: string;
  finalizers?: string[];
  labels?: Record<string, string>;
  annotations?: Record<string, string>;
  ownerReferences?: {
    apiVersion: string;
    kind: string;
    name: string;
    uid: string;
    controller?: boolean;
    blockOwnerDeletion?: boolean;
  }[];
}

/** An object of one of Drover's kinds, as read from the API. */
export interface Resource<K extends string, Spec, Status> {
  apiVersion: string;
  kind: K;
  metadata: ObjectMeta;
  spec: Spec;
  status?: Status;
}

/** A printer column of `kubectl get`; priority 1 shows it with `-o wide` only. */
export interface Column {
  name: string;
  type: "string" | "integer" | "date" | "number" | "boolean";
  jsonPath: string;
  priority?: 0 | 1;
  description?: string;
}

/** All that a CustomResourceDefinition is made of. */
export interface KindDefinition {
  kind: string;
  plural: string;
  singular: string;
  shortNames: string[];
  scope: "Namespaced" | "Cluster";
  description: string;
  /** A kind without a spec (Host) leaves it out. */
  spec?: z.ZodType;
  status: z.ZodType;
  columns: Column[];
  selectableFields?: string[];
  /** CEL rules on the whole object. */
  rules?: CelRule[];
}
