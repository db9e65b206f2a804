/** The node's own Open vSwitch through its database: what is configured, and changes that wait until vswitchd has made them. */
import {
  asMap,
  asNumber,
  asOptional,
  asSet,
  asString,
  byUuid,
  ops,
  type Operation,
  type OvsdbClient,
  type Replica,
  type Row,
} from "../../ovsdb/index.ts";
import { UserError, errorText } from "../errors.ts";

export const INTEGRATION_BRIDGE = "br-int";

export interface SwitchInterface {
  uuid: string;
  name: string;
  type: string;
  externalIds: Map<string, string>;
  /** The kernel's index of the interface that vswitchd has open; undefined while it has none. */
  ifindex: number | undefined;
  /** Why vswitchd could not open it. */
  error: string | undefined;
}

export interface SwitchPort {
  uuid: string;
  name: string;
  bridge: string;
  interfaces: SwitchInterface[];
}

const MONITORED = {
  Open_vSwitch: { columns: ["bridges", "cur_cfg", "next_cfg", "external_ids", "other_config"] },
  Bridge: { columns: ["name", "ports", "datapath_type", "fail_mode", "external_ids", "other_config"] },
  Port: { columns: ["name", "interfaces"] },
  Interface: { columns: ["name", "type", "external_ids", "ifindex", "error"] },
};

export class LocalSwitch {
  readonly client: OvsdbClient;
  readonly replica: Replica;

  constructor(client: OvsdbClient) {
    this.client = client;
    this.replica = client.monitor(MONITORED);
  }

  /** The one row of table Open_vSwitch. Throws UserError while the database cannot be asked or is empty. */
  root(): { uuid: string; row: Row } {
    const [first] = this.replica.rows("Open_vSwitch");
    if (!this.replica.synced || first === undefined) {
      const why = this.client.lastError === undefined ? "" : ` (${errorText(this.client.lastError)})`;
      throw new UserError("SwitchDown", `Open vSwitch on this node does not answer${why}; look at the ovs pod of the node`);
    }
    return { uuid: first[0], row: first[1] };
  }

  /** Who does the switching; undefined while that is not known. */
  datapath(): "kernel" | "userspace" | undefined {
    const bridge = this.replica.synced ? this.bridge(INTEGRATION_BRIDGE) : undefined;
    if (bridge === undefined) return undefined;
    return asOptional(bridge.row["datapath_type"]) === "netdev" ? "userspace" : "kernel";
  }

  bridge(name: string): { uuid: string; row: Row } | undefined {
    return findRow(this.replica, "Bridge", name);
  }

  interface(name: string): SwitchInterface | undefined {
    const found = findRow(this.replica, "Interface", name);
    return found === undefined ? undefined : toInterface(found.uuid, found.row);
  }

  /** Port of this name, whatever bridge it is on. */
  port(name: string): SwitchPort | undefined {
    return this.ports((port) => port === name)[0];
  }

  ports(wanted: (name: string) => boolean = () => true): SwitchPort[] {
    const interfaces = this.replica.rows("Interface");
    const ports = this.replica.rows("Port");
    return [...this.replica.rows("Bridge").values()].flatMap((bridge) =>
      asSet(bridge["ports"]).flatMap((uuid) => {
        const row = ports.get(uuid);
        if (row === undefined || !wanted(asString(row["name"]))) return [];
        return [
          {
            uuid,
            name: asString(row["name"]),
            bridge: asString(bridge["name"]),
            interfaces: asSet(row["interfaces"]).flatMap((id) => {
              const found = interfaces.get(id);
              return found === undefined ? [] : [toInterface(id, found)];
            }),
          },
        ];
      }),
    );
  }

  /**
   * Runs the operations as one transaction and resolves when vswitchd has acted on it.
   * Throws UserError SwitchDown when vswitchd does not within `waitMs`; the configuration stands then all the same.
   */
  async apply(operations: readonly Operation[], opts: { waitMs?: number; signal?: AbortSignal } = {}): Promise<void> {
    const { waitMs = 5_000, signal } = opts;
    const root = byUuid(this.root().uuid);
    const results = await this.client.transact(
      [...operations, ops.mutate("Open_vSwitch", root, [["next_cfg", "+=", 1]]), ops.select("Open_vSwitch", root, ["next_cfg"])],
      signal === undefined ? {} : { signal },
    );
    const serial = asNumber(results.at(-1)?.rows?.[0]?.["next_cfg"]);
    await this.until(
      () => asNumber(this.root().row["cur_cfg"]) >= serial,
      waitMs,
      signal,
      () =>
        new UserError("SwitchDown", `ovs-vswitchd on this node did not act within ${waitMs} ms; look at the ovs pod of the node`),
    );
  }

  /** Resolves when `test` holds, looked at after each change of the database. Throws `late` after `ms`, or when the signal aborts. */
  until(test: () => boolean, ms: number, signal: AbortSignal | undefined, late: () => Error): Promise<void> {
    return new Promise((resolve, reject) => {
      const end = (finish: () => void): void => {
        clearTimeout(timer);
        for (const unsubscribe of subscriptions) unsubscribe();
        signal?.removeEventListener("abort", onAbort);
        finish();
      };
      const onAbort = (): void => end(() => reject(signal?.reason instanceof Error ? signal.reason : new Error("aborted")));
      // While the database is away its rows are old: it may come back before the deadline.
      const look = (): void => {
        if (this.replica.synced && test()) end(resolve);
      };
      const timer = setTimeout(() => end(() => reject(late())), ms);
      const subscriptions = [this.replica.onChange(look), this.replica.onSync(look)];
      signal?.addEventListener("abort", onAbort, { once: true });
      if (signal?.aborted) onAbort();
      else look();
    });
  }
}

function findRow(replica: Replica, table: string, name: string): { uuid: string; row: Row } | undefined {
  for (const [uuid, row] of replica.rows(table)) if (asOptional(row["name"]) === name) return { uuid, row };
  return undefined;
}

function toInterface(uuid: string, row: Row): SwitchInterface {
  const ifindex = asOptional(row["ifindex"]);
  return {
    uuid,
    name: asString(row["name"]),
    type: asOptional(row["type"]) ?? "",
    externalIds: asMap(row["external_ids"]),
    ifindex: ifindex === undefined || ifindex === "0" ? undefined : Number(ifindex),
    error: asOptional(row["error"]),
  };
}
