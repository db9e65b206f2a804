/** What this node's switch should be told, as the difference to what it was told before. Pure. */
import {
  asMap,
  asOptional,
  asSet,
  asString,
  byUuid,
  mapOf,
  namedUuid,
  ops,
  sameValue,
  type Operation,
  type Row,
  type RowChange,
} from "../../ovsdb/index.ts";
import { INTEGRATION_BRIDGE } from "../nic/switch.ts";
import { UNDERLAY_BRIDGE, UNDERLAY_LINK } from "./underlay.ts";

/** Rows by uuid, as the replica has them. */
export interface SwitchRows {
  root: { uuid: string; row: Row };
  bridges: ReadonlyMap<string, Row>;
  ports: ReadonlyMap<string, Row>;
}

export type Datapath = "kernel" | "userspace";

export interface SwitchWant {
  nodeName: string;
  /** As ovn-controller takes it; undefined while no endpoint is known: what was told before then stays. */
  ovnRemote: string | undefined;
  encapIp: string;
  datapath: Datapath;
  /** For a userspace switch with an underlay of ours: the hardware address that br-phys must have. */
  underlayMac: string | undefined;
}

const OWNER = { "drover.dev/owner": "ovs-launcher" };

export const datapathType = (datapath: Datapath): string => (datapath === "kernel" ? "system" : "netdev");

/** Operations of one transaction that bring the switch to what is wanted; none when it is so. Keys of others are left alone. */
export function planSettings(seen: SwitchRows, want: SwitchWant): Operation[] {
  const root = seen.root;
  const underlay = want.underlayMac;
  return [
    ...mapDifference("Open_vSwitch", root.uuid, "external_ids", root.row, {
      "system-id": want.nodeName,
      hostname: want.nodeName,
      ...(want.ovnRemote === undefined ? {} : { "ovn-remote": want.ovnRemote }),
      "ovn-encap-type": "geneve",
      "ovn-encap-ip": want.encapIp,
      "ovn-bridge": INTEGRATION_BRIDGE,
      "ovn-bridge-datapath-type": datapathType(want.datapath),
      // Without it a new port waits for one more round trip to the southbound database before its flows are there.
      "ovn-monitor-all": "true",
    }),
    ...ensureBridge(seen, INTEGRATION_BRIDGE, { datapathType: datapathType(want.datapath), failMode: "secure", otherConfig: {} }),
    ...(underlay === undefined
      ? removeOwnBridge(seen, UNDERLAY_BRIDGE)
      : [
          ...ensureBridge(
            seen,
            UNDERLAY_BRIDGE,
            // The macvlan child lets only its own address pass: another one on the bridge and every packet is lost.
            { datapathType: "netdev", failMode: "standalone", otherConfig: { hwaddr: underlay } },
            UNDERLAY_LINK,
          ),
        ]),
  ];
}

interface BridgeWant {
  datapathType: string;
  failMode: string;
  otherConfig: Record<string, string>;
}

function ensureBridge(seen: SwitchRows, name: string, want: BridgeWant, port?: string): Operation[] {
  const found = bridgeNamed(seen, name);
  const label = name.replaceAll("-", "_");
  if (found === undefined) {
    const ports = [name, ...(port === undefined ? [] : [port])];
    return [
      ...ports.flatMap((one) => insertPort(one, one === name ? "internal" : "")),
      ops.insert(
        "Bridge",
        {
          name,
          ports: ports.map((one) => namedUuid(portLabel(one))),
          datapath_type: want.datapathType,
          fail_mode: want.failMode,
          other_config: mapOf(want.otherConfig),
          external_ids: mapOf(OWNER),
        },
        `bridge_${label}`,
      ),
      ops.mutate("Open_vSwitch", byUuid(seen.root.uuid), [["bridges", "insert", [namedUuid(`bridge_${label}`)]]]),
    ];
  }
  const plain: Record<string, string> = {};
  if (asOptional(found.row["datapath_type"]) !== want.datapathType) plain["datapath_type"] = want.datapathType;
  if (asOptional(found.row["fail_mode"]) !== want.failMode) plain["fail_mode"] = want.failMode;
  const portNames = asSet(found.row["ports"]).map((id) => asOptional(seen.ports.get(id)?.["name"]));
  return [
    ...(Object.keys(plain).length === 0 ? [] : [ops.update("Bridge", byUuid(found.uuid), plain)]),
    ...mapDifference("Bridge", found.uuid, "other_config", found.row, want.otherConfig),
    ...(port === undefined || portNames.includes(port)
      ? []
      : [...insertPort(port, ""), ops.mutate("Bridge", byUuid(found.uuid), [["ports", "insert", [namedUuid(portLabel(port))]]])]),
  ];
}

function insertPort(name: string, type: string): Operation[] {
  return [
    ops.insert("Interface", { name, type }, `interface_${name.replaceAll("-", "_")}`),
    ops.insert("Port", { name, interfaces: [namedUuid(`interface_${name.replaceAll("-", "_")}`)] }, portLabel(name)),
  ];
}

const portLabel = (name: string): string => `port_${name.replaceAll("-", "_")}`;

function removeOwnBridge(seen: SwitchRows, name: string): Operation[] {
  const found = bridgeNamed(seen, name);
  if (found === undefined || asMap(found.row["external_ids"]).get("drover.dev/owner") !== OWNER["drover.dev/owner"]) return [];
  return [ops.mutate("Open_vSwitch", byUuid(seen.root.uuid), [["bridges", "delete", [{ uuid: found.uuid }]]])];
}

function bridgeNamed(seen: SwitchRows, name: string): { uuid: string; row: Row } | undefined {
  for (const [uuid, row] of seen.bridges) if (asString(row["name"]) === name) return { uuid, row };
  return undefined;
}

/** Sets these keys of a map column where they differ. */
function mapDifference(table: string, uuid: string, column: string, row: Row, want: Record<string, string>): Operation[] {
  const now = asMap(row[column]);
  const changed = Object.fromEntries(Object.entries(want).filter(([key, value]) => now.get(key) !== value));
  const keys = Object.keys(changed);
  if (keys.length === 0) return [];
  // Inserting keeps the value of a key that is there: it is deleted first.
  return [
    ops.mutate(table, byUuid(uuid), [
      [column, "delete", keys],
      [column, "insert", mapOf(changed)],
    ]),
  ];
}

/** The datapath a new switch gets; one that exists keeps its own in mode auto, for changing it would cut off every guest. */
export function chooseDatapath(
  mode: "auto" | Datapath,
  seen: { kernelModule: boolean; integrationBridge: string | undefined },
): Datapath {
  if (mode !== "auto") return mode;
  if (seen.integrationBridge === "netdev") return "userspace";
  if (seen.integrationBridge === "system" && seen.kernelModule) return "kernel";
  return seen.kernelModule ? "kernel" : "userspace";
}

const OURS: Record<string, readonly string[]> = {
  Open_vSwitch: ["external_ids", "bridges"],
  Bridge: ["datapath_type", "fail_mode", "other_config"],
};

/** Whether these changes can have touched a setting of ours; what vswitchd and ovn-controller write all the time does not. */
export const touchesSettings = (changes: readonly RowChange[]): boolean =>
  changes.some(({ table, old, now }) =>
    (OURS[table] ?? []).some((column) => !sameValue(old?.[column] ?? [], now?.[column] ?? [])),
  );
