import { describe, expect, it } from "vitest";
import { readSchema } from "./schema.ts";
import { applyUpdate1, applyUpdate2, changesBetween } from "./updates.ts";
import { mapOf, type Row, uuid } from "./values.ts";

const schema = readSchema({
  tables: {
    Port: {
      columns: {
        name: { type: "string" },
        count: { type: { key: { type: "integer", minInteger: 0 } } },
        up: { type: { key: "boolean", min: 0, max: 1 } },
        tags: { type: { key: "string", min: 0, max: "unlimited" } },
        ids: { type: { key: "string", value: "string", min: 0, max: "unlimited" } },
        peer: { type: { key: { type: "uuid", refTable: "Port" }, min: 0, max: 1 } },
      },
    },
  },
});
const columns = schema.get("Port") ?? new Map();
const row: Row = { name: "a", count: 1, up: [], tags: ["x", "y"], ids: mapOf({ k: "1", l: "2" }), peer: [] };

describe.each([
  [
    "a new row, defaults left out",
    undefined,
    { insert: { name: "n" } },
    { name: "n", count: 0, up: [], tags: [], ids: new Map(), peer: [] },
  ],
  [
    "the first snapshot",
    undefined,
    { initial: { name: "a", tags: "x" } },
    { name: "a", count: 0, up: [], tags: ["x"], ids: new Map(), peer: [] },
  ],
  ["a scalar", row, { modify: { name: "b", count: 2 } }, { ...row, name: "b", count: 2 }],
  ["an optional given", row, { modify: { up: true } }, { ...row, up: [true] }],
  ["an optional taken away", { ...row, up: true }, { modify: { up: ["set", []] } }, { ...row, up: [] }],
  [
    "an optional reference replaced",
    { ...row, peer: uuid("1") },
    { modify: { peer: ["uuid", "2"] } },
    { ...row, peer: [uuid("2")] },
  ],
  ["set: one out, one in", row, { modify: { tags: ["set", ["x", "z"]] } }, { ...row, tags: ["y", "z"] }],
  ["set: a lone atom is a difference too", row, { modify: { tags: "x" } }, { ...row, tags: ["y"] }],
  [
    "map: changed, added, removed",
    row,
    {
      modify: {
        ids: [
          "map",
          [
            ["k", "9"],
            ["l", "2"],
            ["m", "3"],
          ],
        ],
      },
    },
    { ...row, ids: mapOf({ k: "9", m: "3" }) },
  ],
  ["gone", row, { delete: null }, undefined],
])("update2: %s", (_, old, update, now) => {
  it("gives the row", () => expect(applyUpdate2(old, update, columns)).toEqual(now));
});

describe("updates", () => {
  it("refuses a change of an unknown row", () => {
    expect(() => applyUpdate2(undefined, { modify: { name: "b" } }, columns)).toThrow(/never sent/);
  });
  it("takes RFC 7047's whole rows", () => {
    expect(applyUpdate1({ old: { name: "a" }, new: { name: "b", count: 1, tags: ["set", ["x"]] } }, columns)).toMatchObject({
      name: "b",
      tags: ["x"],
    });
    expect(applyUpdate1({ old: { name: "a" } }, columns)).toBeUndefined();
  });
  it("tells what differs after a resynchronisation", () => {
    const before = new Map<string, Row>([
      ["1", { name: "a" }],
      ["2", { name: "b" }],
      ["3", { tags: ["x", "y"] }],
    ]);
    const after = new Map<string, Row>([
      ["2", { name: "c" }],
      ["3", { tags: ["y", "x"] }],
      ["4", { name: "d" }],
    ]);
    expect(changesBetween("Port", before, after)).toEqual([
      { table: "Port", uuid: "1", old: { name: "a" } },
      { table: "Port", uuid: "2", old: { name: "b" }, now: { name: "c" } },
      { table: "Port", uuid: "4", now: { name: "d" } },
    ]);
  });
});
