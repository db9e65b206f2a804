import { describe, expect, it } from "vitest";
import { mapOf, namedUuid, type Operation, type Row, uuid } from "../../ovsdb/index.ts";
import { type ActualRow, type DiffInput, diffRows } from "./diff.ts";
import type { DesiredRow } from "./rows.ts";

const SWITCH = "s-uuid";
const DHCP = "d-uuid";
const ids = (role: string, more: Record<string, string> = {}) =>
  mapOf({ "drover-scope": "drover", "drover-owner": "instance/u", "drover-role": role, "drover-name": "team-a/web", ...more });

const port: DesiredRow = {
  owner: "instance/u",
  role: "port/eth0/net",
  table: "Logical_Switch_Port",
  columns: { name: "p", addresses: ["m 10.0.0.2"], options: mapOf({ "requested-chassis": "n1" }), dhcpv4_options: [] },
  refs: { dhcpv4_options: { owner: "network/net", role: "dhcp4" } },
  parent: { owner: "network/net", role: "switch", table: "Logical_Switch", column: "ports" },
};
const dns: DesiredRow = {
  owner: "instance/u",
  role: "dns/net",
  table: "DNS",
  columns: { records: mapOf({ web: "10.0.0.2" }) },
  parent: { owner: "network/net", role: "switch", table: "Logical_Switch", column: "dns_records" },
};
const portThere: Row = {
  name: "p",
  addresses: ["m 10.0.0.2"],
  options: mapOf({ "requested-chassis": "n1" }),
  dhcpv4_options: [uuid(DHCP)],
  external_ids: ids("port/eth0/net"),
};
const dnsThere: Row = { records: mapOf({ web: "10.0.0.2" }), external_ids: ids("dns/net", { "drover-listed-in": SWITCH }) };
const rowOf = (table: ActualRow["table"], id: string, row: Row): ActualRow => ({ table, uuid: id, row });
const there = [rowOf("Logical_Switch_Port", "p1", portThere), rowOf("DNS", "n1", dnsThere)];

const diff = (input: Partial<DiffInput>) =>
  diffRows({
    owner: "instance/u",
    name: "team-a/web",
    scope: "drover",
    desired: [port, dns],
    actual: there,
    find: ({ role }) => ({ switch: SWITCH, dhcp4: DHCP })[role],
    ...input,
  });
const changes = (input: Partial<DiffInput>): Operation[] => {
  const result = diff(input);
  if ("missing" in result) throw new Error(`missing ${result.missing.role}`);
  return result.operations.filter(({ op }) => op !== "wait" && op !== "comment");
};

describe("diffRows", () => {
  it("has nothing to do when nothing differs, whatever the order of sets", () => {
    expect(diff({})).toEqual({ operations: [] });
  });

  it("inserts what is missing, listed where it belongs, guarded against a second writer", () => {
    const result = diff({ actual: [] });
    expect(result).toMatchObject({
      operations: [
        { op: "wait", table: "Logical_Switch", until: "!=" },
        { op: "wait", table: "DNS", until: "==", rows: [], timeoutMs: 0 },
        { op: "wait", table: "Logical_Switch", until: "!=" },
        {
          op: "insert",
          table: "Logical_Switch_Port",
          row: { name: "p", dhcpv4_options: uuid(DHCP), external_ids: ids("port/eth0/net") },
        },
        { op: "mutate", table: "Logical_Switch", mutations: [["ports", "insert", [namedUuid("row0")]]] },
        { op: "insert", table: "DNS", row: { external_ids: ids("dns/net", { "drover-listed-in": SWITCH }) } },
        { op: "mutate", table: "Logical_Switch", mutations: [["dns_records", "insert", [namedUuid("row1")]]] },
        { op: "comment" },
      ],
    });
  });

  it("updates only the columns that differ", () => {
    const moved = { ...portThere, options: mapOf({ "requested-chassis": "n1,n2", "activation-strategy": "rarp" }), up: [true] };
    expect(changes({ actual: [rowOf("Logical_Switch_Port", "p1", moved), ...there.slice(1)] })).toEqual([
      {
        op: "update",
        table: "Logical_Switch_Port",
        where: [["_uuid", "==", uuid("p1")]],
        row: { options: mapOf({ "requested-chassis": "n1" }) },
      },
    ]);
  });

  it("refers again to what was made anew", () => {
    expect(changes({ find: ({ role }) => ({ switch: SWITCH, dhcp4: "new" })[role] })).toMatchObject([
      { op: "update", row: { dhcpv4_options: uuid("new") } },
    ]);
  });

  it("lists a row that outlived its switch in the new one", () => {
    expect(changes({ desired: [dns], actual: there.slice(1), find: () => "s-new" })).toMatchObject([
      {
        op: "mutate",
        table: "Logical_Switch",
        where: [["_uuid", "==", uuid("s-new")]],
        mutations: [["dns_records", "insert", [uuid("n1")]]],
      },
      { op: "mutate", table: "DNS" },
    ]);
  });

  it("keeps others' marks on our rows", () => {
    const marked = new Map([...ids("port/eth0/net"), ["other", "x"] as const]);
    expect(
      changes({ actual: [rowOf("Logical_Switch_Port", "p1", { ...portThere, external_ids: marked }), ...there.slice(1)] }),
    ).toEqual([]);
    marked.set("drover-name", "team-a/other");
    expect(
      changes({ actual: [rowOf("Logical_Switch_Port", "p1", { ...portThere, external_ids: marked }), ...there.slice(1)] }),
    ).toMatchObject([
      {
        op: "mutate",
        mutations: [
          ["external_ids", "delete", ["drover-name"]],
          ["external_ids", "insert", mapOf({ "drover-name": "team-a/web" })],
        ],
      },
    ]);
  });

  it("removes what is not wanted, and doubles: listed rows from their list, others outright", () => {
    expect(changes({ desired: [] })).toEqual([
      { op: "delete", table: "DNS", where: [["_uuid", "==", uuid("n1")]] },
      {
        op: "mutate",
        table: "Logical_Switch",
        where: [["ports", "includes", [uuid("p1")]]],
        mutations: [["ports", "delete", [uuid("p1")]]],
      },
    ]);
    expect(changes({ actual: [...there, rowOf("DNS", "n9", dnsThere)] })).toEqual([
      { op: "delete", table: "DNS", where: [["_uuid", "==", uuid("n9")]] },
    ]);
  });

  it("says what has to be there first", () => {
    expect(diff({ actual: [], find: () => undefined })).toEqual({ missing: expect.objectContaining({ owner: "network/net" }) });
  });
});
