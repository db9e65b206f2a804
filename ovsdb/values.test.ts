import { describe, expect, it } from "vitest";
import {
  asBoolean,
  asMap,
  asNumber,
  asOptional,
  asSet,
  asString,
  canonical,
  decodeValue,
  encodeValue,
  mapOf,
  namedUuid,
  sameValue,
  uuid,
  type Value,
} from "./values.ts";

const id = "11111111-2222-3333-4444-555555555555";

describe.each<[string, Value, unknown]>([
  ["a string", "a", "a"],
  ["a number", 7, 7],
  ["a reference", uuid(id), ["uuid", id]],
  ["a reference to a row being made", namedUuid("new"), ["named-uuid", "new"]],
  ["an empty set", [], ["set", []]],
  [
    "a set of references",
    [uuid(id), uuid("b")],
    [
      "set",
      [
        ["uuid", id],
        ["uuid", "b"],
      ],
    ],
  ],
  [
    "a map",
    mapOf({ a: "1", b: "2" }),
    [
      "map",
      [
        ["a", "1"],
        ["b", "2"],
      ],
    ],
  ],
  ["a map of references", new Map([[5, uuid(id)]]), ["map", [[5, ["uuid", id]]]]],
])("%s", (_, value, wire) => {
  it("goes over the wire and back", () => {
    expect(encodeValue(value)).toEqual(wire);
    expect(decodeValue(wire)).toEqual(value);
  });
});

describe("reading columns", () => {
  it("takes a lone atom for a set of one", () => {
    expect(asSet("a")).toEqual(["a"]);
    expect(asSet(uuid(id))).toEqual([id]);
    expect(asSet(["a", "b"])).toEqual(["a", "b"]);
    expect(asSet(undefined)).toEqual([]);
  });
  it("reads optional, single and map columns", () => {
    expect(asOptional([])).toBeUndefined();
    expect(asOptional(["x"])).toBe("x");
    expect(asString("")).toBe("");
    expect(asNumber([3])).toBe(3);
    expect(asBoolean([])).toBeUndefined();
    expect(asBoolean(false)).toBe(false);
    expect(asMap(mapOf({ k: "v" }))).toEqual(new Map([["k", "v"]]));
    expect(asMap([])).toEqual(new Map());
  });
  it.each<[string, () => unknown]>([
    ["two values for one", () => asOptional(["a", "b"])],
    ["none for one", () => asString([])],
    ["a set for a map", () => asMap(["a"])],
    ["a map for a set", () => asSet(new Map())],
    ["text for a number", () => asNumber("3")],
    ["an object that is no atom", () => decodeValue({ a: 1 })],
    ["a broken pair", () => decodeValue(["map", [["a"]]])],
  ])("refuses %s", (_, read) => expect(read).toThrow(/column|OVSDB/));
});

describe("equality", () => {
  it("does not mind order, repetition, or how a set of one is written", () => {
    expect(canonical(["b", "a", "a"])).toBe(canonical(["a", "b"]));
    expect(sameValue("a", ["a"])).toBe(true);
    expect(sameValue(mapOf({ a: "1", b: "2" }), mapOf({ b: "2", a: "1" }))).toBe(true);
    expect(sameValue([], new Map())).toBe(true);
  });
  it("keeps apart what looks alike", () => {
    expect(sameValue("1", 1)).toBe(false);
    expect(sameValue(uuid("a"), "a")).toBe(false);
    expect(sameValue(mapOf({ a: "1" }), mapOf({ a: "2" }))).toBe(false);
    expect(sameValue(mapOf({ "a,b": "c" }), mapOf({ a: "b,c" }))).toBe(false);
  });
});
