/** What of OVN and Open vSwitch a guest needs that Drover does not care for: its port, and on each node a tap in the switch. */
import { rootLogger } from "../../kube/index.ts";
import {
  asMap,
  asOptional,
  asSet,
  asString,
  byUuid,
  mapOf,
  namedUuid,
  ops,
  OvsdbClient,
  uuid,
  type Replica,
} from "../../ovsdb/index.ts";
import { inNode } from "../lab/index.ts";
import { rooted } from "./qemu.ts";

const INSTALLED_MS = 20_000;
const MTU = 1442;

interface Switch {
  client: OvsdbClient;
  replica: Replica;
}

/** Connections to the databases, kept open as Drover keeps its own. */
export interface Databases {
  northbound: OvsdbClient;
  switches: ReadonlyMap<string, Switch>;
  close(): void;
}

/** Where a process of a name runs. */
export const processNamed = async (nodes: readonly string[], name: string): Promise<{ node: string; pid: number }> => {
  for (const node of nodes) {
    const found = await inNode(node, "sh", ["-c", 'pgrep -x "$0" || true', name]);
    const [pid] = found.split("\n").filter((line) => line !== "");
    if (pid !== undefined) return { node, pid: Number(pid) };
  }
  throw new Error(`no ${name} runs on ${nodes.join(", ")}`);
};

export const openDatabases = async (all: readonly string[], movers: readonly string[]): Promise<Databases> => {
  const ending = new AbortController();
  const log = rootLogger("bench");
  log.level = "warn";
  const open = async (path: string, database: string): Promise<OvsdbClient> => {
    const client = new OvsdbClient({ remotes: [{ kind: "unix", path }], database, log });
    client.start(ending.signal);
    await client.connectedOnce;
    return client;
  };
  const northd = await processNamed(all, "ovn-northd");
  const northbound = await open(await rooted(northd.node, `/proc/${northd.pid}/root/run/ovn/ovnnb_db.sock`), "OVN_Northbound");
  const switches = new Map<string, Switch>();
  for (const node of movers) {
    const client = await open(await rooted(node, "/run/openvswitch/db.sock"), "Open_vSwitch");
    const replica = client.monitor({
      Bridge: { columns: ["name"] },
      Port: { columns: ["name"] },
      Interface: { columns: ["name", "external_ids"] },
    });
    await replica.whenSynced();
    switches.set(node, { client, replica });
  }
  return { northbound, switches, close: () => ending.abort() };
};

export interface Address {
  mac: string;
  ipv4: string;
}

/** One guest's port. */
export class GuestPort {
  readonly name: string;
  readonly tap: string;
  readonly address: Address;
  readonly #databases: Databases;

  constructor(databases: Databases, name: string, address: Address) {
    this.#databases = databases;
    this.name = name;
    this.tap = name.slice(0, 15);
    this.address = address;
  }

  /** Makes it on the switch of another port, whose DHCP options it shares. */
  async create(like: string): Promise<void> {
    await this.remove();
    const { northbound, switches } = this.#databases;
    for (const node of switches.keys()) await this.unplug(node);
    const [found] = await northbound.transact([
      ops.select("Logical_Switch_Port", [["name", "==", like]], ["_uuid", "dhcpv4_options"]),
    ]);
    const row = found?.rows?.[0];
    if (row === undefined) throw new Error(`OVN has no port ${like}`);
    const other = uuid(asSet(row["_uuid"])[0] ?? "");
    const { mac, ipv4 } = this.address;
    const dhcp = asSet(row["dhcpv4_options"]).map(uuid);
    await northbound.transact([
      ops.insert("Logical_Switch_Port", { name: this.name, addresses: [`${mac} ${ipv4}`], dhcpv4_options: dhcp }, "port"),
      ops.mutate("Logical_Switch", [["ports", "includes", [other]]], [["ports", "insert", [namedUuid("port")]]]),
    ]);
  }

  /** May be repeated. */
  async remove(): Promise<void> {
    const { northbound } = this.#databases;
    const [found] = await northbound.transact([ops.select("Logical_Switch_Port", [["name", "==", this.name]], ["_uuid"])]);
    const id = asSet(found?.rows?.[0]?.["_uuid"] ?? [])[0];
    if (id === undefined) return;
    await northbound.transact([
      ops.mutate("Logical_Switch", [["ports", "includes", [uuid(id)]]], [["ports", "delete", [uuid(id)]]]),
    ]);
  }

  /** Who may have it; the second of two is silent until the guest says by a RARP that it runs there. */
  async chassis(...nodes: string[]): Promise<void> {
    const options = { "requested-chassis": nodes.join(","), ...(nodes.length > 1 ? { "activation-strategy": "rarp" } : {}) };
    await this.#databases.northbound.transact([
      ops.update("Logical_Switch_Port", [["name", "==", this.name]], { options: mapOf(options) }),
    ]);
  }

  /** Commands of the node's shell that make the tap. */
  get makeTap(): string {
    return `ip tuntap add dev ${this.tap} mode tap && ip link set ${this.tap} mtu ${MTU} up`;
  }

  /** Puts the tap, which is there, into the node's switch; resolves when OVN has made all its flows. */
  async plug(node: string): Promise<void> {
    const { client, replica } = this.#switch(node);
    const bridge = [...replica.rows("Bridge")].find(([, row]) => asString(row["name"]) === "br-int")?.[0];
    if (bridge === undefined) throw new Error(`${node} has no br-int`);
    await client.transact([
      ops.insert("Interface", { name: this.tap, external_ids: mapOf({ "iface-id": this.name }) }, "nic"),
      ops.insert("Port", { name: this.tap, interfaces: [namedUuid("nic")] }, "port"),
      ops.mutate("Bridge", byUuid(bridge), [["ports", "insert", [namedUuid("port")]]]),
    ]);
    const installed = (): boolean =>
      [...replica.rows("Interface").values()].some(
        (row) => asString(row["name"]) === this.tap && asMap(row["external_ids"]).get("ovn-installed") === "true",
      );
    await new Promise<void>((resolve, reject) => {
      const timer = setTimeout(() => reject(new Error(`OVN has not installed ${this.tap} on ${node}`)), INSTALLED_MS);
      const look = (): void => {
        if (!installed()) return;
        clearTimeout(timer);
        stop();
        resolve();
      };
      const stop = replica.onChange(look);
      look();
    });
  }

  /** Takes it out of the node's switch, and the tap away. May be repeated. */
  async unplug(node: string): Promise<void> {
    const { client, replica } = this.#switch(node);
    const id = [...replica.rows("Port")].find(([, row]) => asOptional(row["name"]) === this.tap)?.[0];
    if (id !== undefined)
      await client.transact([ops.mutate("Bridge", [["name", "==", "br-int"]], [["ports", "delete", [uuid(id)]]])]);
    await inNode(node, "sh", ["-c", '! ip link show "$0" >/dev/null 2>&1 || ip link delete "$0"', this.tap]);
  }

  #switch(node: string): Switch {
    const found = this.#databases.switches.get(node);
    if (found === undefined) throw new Error(`no connection to the switch of ${node}`);
    return found;
  }
}
