import { describe, expect, test } from "vitest";
import { asString, mapOf, type Row } from "../../ovsdb/index.ts";
import { chooseDatapath, planSettings, type SwitchRows, type SwitchWant } from "./settings.ts";

const want: SwitchWant = {
  nodeName: "n1",
  ovnRemote: "ssl:10.0.0.1:6642",
  encapIp: "10.97.0.11",
  datapath: "userspace",
  underlayMac: "02:00:00:00:00:01",
};
const told = {
  "system-id": "n1",
  hostname: "n1",
  "ovn-remote": "ssl:10.0.0.1:6642",
  "ovn-encap-type": "geneve",
  "ovn-encap-ip": "10.97.0.11",
  "ovn-bridge": "br-int",
  "ovn-bridge-datapath-type": "netdev",
  "ovn-monitor-all": "true",
};
const owner = mapOf({ "drover.dev/owner": "ovs-launcher" });
const rows = (external: Record<string, string>, bridges: Record<string, Row>): SwitchRows => ({
  root: { uuid: "root", row: { external_ids: mapOf(external), bridges: Object.keys(bridges).map((uuid) => ({ uuid })) } },
  bridges: new Map(Object.entries(bridges)),
  ports: new Map([
    ["p1", { name: "br-phys" }],
    ["p2", { name: "under0" }],
    ["p3", { name: "br-int" }],
  ]),
});
const brInt: Row = {
  name: "br-int",
  datapath_type: "netdev",
  fail_mode: "secure",
  ports: [{ uuid: "p3" }],
  other_config: new Map(),
  external_ids: owner,
};
const brPhys: Row = {
  name: "br-phys",
  datapath_type: "netdev",
  fail_mode: "standalone",
  ports: [{ uuid: "p1" }, { uuid: "p2" }],
  other_config: mapOf({ hwaddr: "02:00:00:00:00:01" }),
  external_ids: owner,
};

describe("planSettings", () => {
  test("writes nothing when all is so, whatever others have set", () => {
    const seen = rows(
      { ...told, "ovn-cms-options": "theirs" },
      { a: { ...brInt, other_config: mapOf({ theirs: "1" }) }, b: brPhys },
    );
    expect(planSettings(seen, want)).toEqual([]);
  });

  test("makes both bridges with their ports and the underlay's address in one transaction", () => {
    const operations = planSettings(rows({}, {}), want);
    const inserted = operations.flatMap((one) => (one.op === "insert" ? [`${one.table} ${asString(one.row["name"])}`] : []));
    expect(inserted).toEqual([
      "Interface br-int",
      "Port br-int",
      "Bridge br-int",
      "Interface br-phys",
      "Port br-phys",
      "Interface under0",
      "Port under0",
      "Bridge br-phys",
    ]);
    const phys = operations.find((one) => one.op === "insert" && one.row["name"] === "br-phys" && one.table === "Bridge");
    expect(phys).toMatchObject({ row: { other_config: mapOf({ hwaddr: "02:00:00:00:00:01" }) } });
  });

  test("keeps the endpoints of OVN that were told while none is known", () => {
    expect(planSettings(rows(told, { a: brInt, b: brPhys }), { ...want, ovnRemote: undefined })).toEqual([]);
  });

  test("changes only the keys that differ", () => {
    const seen = rows({ ...told, "ovn-remote": "ssl:10.0.0.9:6642" }, { a: brInt, b: brPhys });
    expect(planSettings(seen, want)).toEqual([
      {
        op: "mutate",
        table: "Open_vSwitch",
        where: [["_uuid", "==", { uuid: "root" }]],
        mutations: [
          ["external_ids", "delete", ["ovn-remote"]],
          ["external_ids", "insert", mapOf({ "ovn-remote": "ssl:10.0.0.1:6642" })],
        ],
      },
    ]);
  });

  test("gives br-phys a lost port and a new address", () => {
    const operations = planSettings(rows(told, { a: brInt, b: { ...brPhys, ports: [{ uuid: "p1" }] } }), {
      ...want,
      underlayMac: "02:00:00:00:00:02",
    });
    expect(operations.map((one) => `${one.op} ${"table" in one ? one.table : ""}`)).toEqual([
      "mutate Bridge",
      "insert Interface",
      "insert Port",
      "mutate Bridge",
    ]);
  });

  test("takes its own underlay down when it is not wanted, and leaves a bridge of that name that is not its own", () => {
    const kernel: SwitchWant = { ...want, datapath: "kernel", underlayMac: undefined };
    const told2 = { ...told, "ovn-bridge-datapath-type": "system" };
    const system = { ...brInt, datapath_type: "system" };
    expect(planSettings(rows(told2, { a: system, b: brPhys }), kernel)).toHaveLength(1);
    expect(planSettings(rows(told2, { a: system, b: { ...brPhys, external_ids: new Map() } }), kernel)).toEqual([]);
  });
});

describe("chooseDatapath", () => {
  test.each([
    ["auto", true, undefined, "kernel"],
    ["auto", false, undefined, "userspace"],
    ["auto", true, "netdev", "userspace"],
    ["auto", true, "system", "kernel"],
    ["auto", false, "system", "userspace"],
    ["kernel", false, "netdev", "kernel"],
    ["userspace", true, "system", "userspace"],
  ] as const)("%s, module %s, bridge %s: %s", (mode, kernelModule, integrationBridge, datapath) => {
    expect(chooseDatapath(mode, { kernelModule, integrationBridge })).toBe(datapath);
  });
});
