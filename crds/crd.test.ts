import { describe, expect, it } from "vitest";
import { z } from "zod";
import { crd, structural, undescribed } from "./crd.ts";
import { hostKind } from "./host.ts";
import { instanceKind } from "./instance.ts";
import { networkKind } from "./network.ts";
import { poolKind } from "./pool.ts";
import { migrationKind } from "./migration.ts";
import { rolloutKind } from "./rollout.ts";
import { bytes, doc, type KindDefinition, oneOf, requiredByRule } from "./schema.ts";

const made = (spec: z.ZodType) => {
  const kind: KindDefinition = { ...poolKind, spec };
  return crd(kind).spec.versions[0]?.schema.openAPIV3Schema.properties.spec;
};

describe.each([instanceKind, networkKind, poolKind, migrationKind, hostKind, rolloutKind])("$kind", (kind) => {
  const version = crd(kind).spec.versions[0];
  const schema = JSON.parse(JSON.stringify(version?.schema.openAPIV3Schema)) as Parameters<typeof undescribed>[0];

  it("describes every field", () => {
    // The API server has its own words for metadata.
    expect(undescribed(schema).filter((path) => path !== "metadata")).toEqual([]);
  });
  it("is listed with the others, and has a status of its own", () => {
    expect(crd(kind).spec.names.categories).toEqual(["drover"]);
    expect(version?.subresources).toEqual({ status: {} });
  });
  it("gives every rule a sentence", () => {
    const rules = JSON.stringify(schema).match(/"rule":/g)?.length ?? 0;
    const messages = JSON.stringify(schema).match(/"message":"/g)?.length ?? 0;
    expect(messages).toBe(rules);
  });
  it("keeps no mark of ours", () => {
    expect(JSON.stringify(schema)).not.toContain("x-drover");
  });
});

describe("structural", () => {
  it.each([
    [
      "closed objects are said open",
      { type: "object", properties: {}, additionalProperties: false },
      { type: "object", properties: {} },
    ],
    [
      "maps stay",
      { type: "object", additionalProperties: { type: "string" } },
      { type: "object", additionalProperties: { type: "string" } },
    ],
    [
      "bounds of a safe integer go, int64 is said",
      { type: "integer", minimum: Number.MIN_SAFE_INTEGER, maximum: Number.MAX_SAFE_INTEGER },
      { type: "integer", format: "int64" },
    ],
    ["other bounds stay", { type: "integer", maximum: 7 }, { type: "integer", maximum: 7, format: "int64" }],
    [
      "fields may be called as words of the schema are",
      { type: "object", properties: { maximum: { type: "string" }, properties: { type: "string" } } },
      { type: "object", properties: { maximum: { type: "string" }, properties: { type: "string" } } },
    ],
    ["a default is taken as it is", { default: { additionalProperties: false } }, { default: { additionalProperties: false } }],
  ])("%s", (_, schema, want) => expect(structural(schema)).toEqual(want));
});

describe("what a rule says instead of the schema", () => {
  it("a required field is not required by the schema", () => {
    const spec = z.object({ a: requiredByRule(z.string().meta(doc("A."))), b: z.string() });
    expect(made(spec)).toMatchObject({ required: ["b"], properties: { a: { type: "string", description: "A." } } });
  });
  it("one of a few words is a string with a rule", () => {
    const driver = made(z.object({ driver: oneOf("driver", ["x", "y"], "D.") }))?.["properties"];
    expect(driver).toEqual({
      driver: {
        description: "D.",
        type: "string",
        maxLength: 32,
        "x-kubernetes-validations": [
          {
            rule: "self in ['x', 'y']",
            message: "this driver is not supported; supported: x, y",
            messageExpression: "'driver %s is not supported; supported: x, y'.format([self])",
          },
        ],
      },
    });
  });
  it("rules on a quantity are asked only of quantities", () => {
    const size = made(
      z.object({ size: bytes("size", "S.", { rule: "quantity(self).isGreaterThan(quantity('1'))", message: "more" }) }),
    );
    expect(JSON.stringify(size)).toMatch(/"rule":"!self\.matches\('[^"]*'\) \|\| quantity\(self\)\.isGreaterThan/);
  });
});
