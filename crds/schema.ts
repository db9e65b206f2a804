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

const LABEL = "small letters, digits and -, beginning and ending with a letter or digit";

/** A DNS label. The form is told by CEL, not by `pattern`, so that the refusal is a sentence. */
export const dnsLabel = (max: number, description: string, ...rules: CelRule[]) =>
  z
    .string()
    .max(max)
    .meta(
      doc(
        description,
        { rule: "self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')", message: `must be a DNS label: ${LABEL}` },
        ...rules,
      ),
    );

/** Rules on an object's own name: a DNS label of at most `max` characters. */
export const nameRules = (what: string, max: number): CelRule[] => [
  { rule: `self.metadata.name.size() <= ${max}`, message: `${what} name can be at most ${max} characters long` },
  {
    rule: "self.metadata.name.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')",
    message: `${what} name must be a DNS label: ${LABEL}; no dots`,
  },
];

/** How a quantity of bytes is written, for `matches`. */
export const QUANTITY_FORM = "^[0-9]+([.][0-9]+)?(Ki|Mi|Gi|Ti|Pi|k|M|G|T|P)?$";
const QUANTITY = `self.matches('${QUANTITY_FORM}')`;

/** The rule holds of quantities only; what is none is refused by its own sentence. */
const ofQuantity = (rule: CelRule): CelRule => ({ ...rule, rule: `!${QUANTITY} || ${rule.rule}` });

/** A Kubernetes quantity of bytes, such as 512Mi or 8Gi. The rules may call `quantity(self)`. */
export const bytes = (name: string, description: string, ...rules: CelRule[]) =>
  z
    .string()
    .max(20)
    .meta(
      doc(
        description,
        {
          rule: QUANTITY,
          message: `${name} must be a number of bytes such as 512Mi or 2Gi`,
          messageExpression: `'${name} must be a number of bytes such as 512Mi or 2Gi, not %s'.format([self])`,
        },
        ...rules.map(ofQuantity),
      ),
    );

/** Labels that a node must have, as in a pod's nodeSelector. */
export const nodeLabels = (description: string) =>
  z
    .record(
      z.string(),
      z
        .string()
        .max(63)
        .meta(
          doc("The label's value.", {
            rule: "self.matches('^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$')",
            message: "a label's value must be of letters, digits, -, _ and ., beginning and ending with a letter or digit",
          }),
        ),
    )
    .meta({
      ...doc(description, {
        rule: "self.all(key, key.size() <= 317 && key.matches('^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$'))",
        message: "a label's key must be a name such as disk or example.com/disk",
      }),
      maxProperties: 32,
    });

/** Marks in the JSON schema of what the CRD must not say itself; taken out again when the CRD is made. */
export const REQUIRED_BY_RULE = "x-drover-required-by-rule";
export const ENUM_BY_RULE = "x-drover-enum-by-rule";

/**
 * A field that must be there, but whose absence is told by a CEL rule of its object: the API server's own "Required value"
 * would stop it before our sentence. Required for TypeScript, optional for the schema.
 */
export const requiredByRule = <T extends z.ZodType>(schema: T): T => schema.meta({ ...schema.meta(), [REQUIRED_BY_RULE]: true });

/** One of a few words. By a CEL rule and not by `enum`, for after an unknown word the API server asks no other rule. */
export const oneOf = <const T extends [string, ...string[]]>(
  name: string,
  values: T,
  description: string,
  ...rules: CelRule[]
) => {
  const supported = `supported: ${values.join(", ")}`;
  const known = {
    rule: `self in [${values.map((value) => `'${value}'`).join(", ")}]`,
    message: `this ${name} is not supported; ${supported}`,
    messageExpression: `'${name} %s is not supported; ${supported}'.format([self])`,
  };
  return z.enum(values).meta({ ...doc(description, known, ...rules), maxLength: 32, [ENUM_BY_RULE]: true });
};

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
