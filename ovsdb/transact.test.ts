import { describe, expect, it } from "vitest";
import { OvsdbError } from "./errors.ts";
import { byUuid, encodeOperation, ops } from "./operations.ts";
import { readTransactReply } from "./transact.ts";
import { mapOf, namedUuid } from "./values.ts";

describe("operations on the wire", () => {
  it.each([
    [
      ops.insert("T", { name: "a", ids: mapOf({ k: "v" }) }, "new"),
      { op: "insert", table: "T", row: { name: "a", ids: ["map", [["k", "v"]]] }, "uuid-name": "new" },
    ],
    [
      ops.update("T", byUuid("1"), { tags: [] }),
      { op: "update", table: "T", where: [["_uuid", "==", ["uuid", "1"]]], row: { tags: ["set", []] } },
    ],
    [
      ops.mutate("T", [], [["ports", "insert", [namedUuid("new")]]]),
      { op: "mutate", table: "T", where: [], mutations: [["ports", "insert", ["set", [["named-uuid", "new"]]]]] },
    ],
    [ops.delete("T", [["name", "==", "a"]]), { op: "delete", table: "T", where: [["name", "==", "a"]] }],
    [ops.select("T", [], ["name"]), { op: "select", table: "T", where: [], columns: ["name"] }],
    [
      ops.wait("T", [], "==", [], { columns: ["name"] }),
      { op: "wait", table: "T", where: [], columns: ["name"], until: "==", rows: [], timeout: 0 },
    ],
    [ops.comment("why"), { op: "comment", comment: "why" }],
  ])("%o", (operation, wire) => expect(encodeOperation(operation)).toEqual(wire));
});

describe("the reply", () => {
  const operations = [ops.insert("A", {}), ops.delete("B", [])];
  it("gives a result for each operation", () => {
    expect(readTransactReply(operations, [{ uuid: ["uuid", "1"] }, { count: 2 }])).toEqual([{ uuid: "1" }, { count: 2 }]);
    expect(readTransactReply([ops.select("A", [])], [{ rows: [{ n: ["set", []] }] }])).toEqual([{ rows: [{ n: [] }] }]);
  });
  it("names the operation that failed", () => {
    const reply = [{ uuid: ["uuid", "1"] }, { error: "timed out", details: "wait" }, null];
    expect(() => readTransactReply(operations, reply)).toThrow(
      /operation 2 of 2 \(delete on B\) was refused: timed out \(wait\)/,
    );
    expect(() => readTransactReply(operations, reply)).toThrow(
      expect.objectContaining({ error: "timed out", details: "wait", index: 1 }),
    );
  });
  it("tells a commit that was refused", () => {
    const reply = [{}, {}, { error: "constraint violation", details: "duplicate name" }];
    expect(() => readTransactReply(operations, reply)).toThrow(/refused as a whole: constraint violation \(duplicate name\)/);
  });
  it("refuses what is no reply", () => expect(() => readTransactReply(operations, "x")).toThrow(OvsdbError));
});
