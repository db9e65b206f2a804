/** From a kind's zod schemas to its CustomResourceDefinition. Pure. */
import { z } from "zod";
import { GROUP, VERSION } from "./names.ts";
import { type Column, ENUM_BY_RULE, type KindDefinition, REQUIRED_BY_RULE } from "./schema.ts";

type Json = null | boolean | number | string | Json[] | { [key: string]: Json };
type JsonObject = { [key: string]: Json };

const isObject = (value: Json | undefined): value is JsonObject =>
  typeof value === "object" && value !== null && !Array.isArray(value);

/** What comes first in a schema, so that the YAML reads well; the rest follows as it stands. */
const order = ["description", "type", "format", "enum", "default", "minimum", "maximum", "minLength", "maxLength", "pattern"];

/**
 * A structural schema from what zod makes: the API server refuses `additionalProperties: false` beside properties, and
 * zod's bounds of a safe integer say nothing to a user. An int64 is said as such.
 */
export const structural = (schema: Json): Json => {
  if (Array.isArray(schema)) return schema.map(structural);
  if (!isObject(schema)) return schema;
  const entries = Object.entries(schema).filter(
    ([key, value]) =>
      key !== REQUIRED_BY_RULE &&
      key !== ENUM_BY_RULE &&
      !(key === "enum" && schema[ENUM_BY_RULE] === true) &&
      !(key === "additionalProperties" && value === false) &&
      !(key === "maximum" && value === Number.MAX_SAFE_INTEGER) &&
      !(key === "minimum" && value === Number.MIN_SAFE_INTEGER),
  );
  const rank = (key: string) => (order.includes(key) ? order.indexOf(key) : order.length);
  const sorted = entries.toSorted(([a], [b]) => rank(a) - rank(b));
  const result: JsonObject = {};
  for (const [key, value] of sorted) {
    // Below `properties` the keys are names of fields, not words of JSON schema.
    if (key === "properties" && isObject(value)) {
      result[key] = Object.fromEntries(Object.entries(value).map(([name, one]) => [name, structural(one)]));
    } else result[key] = key === "default" ? value : structural(value);
  }
  const { properties, required } = schema;
  if (Array.isArray(required) && isObject(properties)) {
    const marked = (name: Json) => {
      const property = typeof name === "string" ? properties[name] : undefined;
      return isObject(property) && property[REQUIRED_BY_RULE] === true;
    };
    result["required"] = required.filter((name) => !marked(name));
  }
  if (result["type"] === "integer") result["format"] = "int64";
  return result;
};

const schemaOf = (type: z.ZodType): JsonObject => {
  const made = structural(JSON.parse(JSON.stringify(z.toJSONSchema(type, { target: "openapi-3.0", io: "input" }))) as Json);
  if (!isObject(made)) throw new Error("a kind's spec and status must be objects");
  return made;
};

/** Paths of the fields that have no description, such as `spec.nics[].name`; none is how it should be. */
export const undescribed = (schema: Json, path = ""): string[] => {
  if (!isObject(schema)) return [];
  const here = path !== "" && typeof schema["description"] !== "string" && !path.endsWith("[]") ? [path] : [];
  const { properties, items, additionalProperties } = schema;
  return [
    ...here,
    ...(isObject(properties)
      ? Object.entries(properties).flatMap(([name, one]) => undescribed(one, path === "" ? name : `${path}.${name}`))
      : []),
    ...undescribed(items ?? null, `${path}[]`),
    ...undescribed(additionalProperties ?? null, `${path}[]`),
  ];
};

const column = ({ name, type, jsonPath, priority, description }: Column) => ({
  name,
  type,
  jsonPath,
  ...(priority ? { priority } : {}),
  ...(description ? { description } : {}),
});

const rootSchema = (kind: KindDefinition) => ({
  description: kind.description,
  type: "object",
  properties: {
    apiVersion: { type: "string", description: `Version of the API: ${GROUP}/${VERSION}.` },
    kind: { type: "string", description: `Kind of the object: ${kind.kind}.` },
    metadata: { type: "object" },
    ...(kind.spec ? { spec: schemaOf(kind.spec) } : {}),
    status: schemaOf(kind.status),
  },
  ...(kind.spec ? { required: ["spec"] } : {}),
  ...(kind.rules ? { "x-kubernetes-validations": kind.rules } : {}),
});

/** The CustomResourceDefinition of a kind. The same for the same kind: nothing of time or place is in it. */
export const crd = (kind: KindDefinition) => ({
  apiVersion: "apiextensions.k8s.io/v1",
  kind: "CustomResourceDefinition",
  metadata: {
    name: `${kind.plural}.${GROUP}`,
    labels: { "app.kubernetes.io/part-of": "drover" },
  },
  spec: {
    group: GROUP,
    scope: kind.scope,
    names: {
      kind: kind.kind,
      listKind: `${kind.kind}List`,
      plural: kind.plural,
      singular: kind.singular,
      shortNames: kind.shortNames,
      categories: ["drover"],
    },
    versions: [
      {
        name: VERSION,
        served: true,
        storage: true,
        schema: { openAPIV3Schema: rootSchema(kind) },
        subresources: { status: {} },
        additionalPrinterColumns: kind.columns.map(column),
        ...(kind.selectableFields ? { selectableFields: kind.selectableFields.map((jsonPath) => ({ jsonPath })) } : {}),
      },
    ],
  },
});
