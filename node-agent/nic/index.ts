/** The NICs of this node's instances: a tap in the kernel and its port on br-int, bound to OVN's logical port by `iface-id`. */
import { tapName } from "../../crds/names.ts";
import type { NicStatus } from "../../crds/instance.ts";
import type { Logger } from "../../kube/index.ts";
import { byUuid, mapOf, namedUuid, ops, type RowChange } from "../../ovsdb/index.ts";
import { UserError } from "../errors.ts";
import type { Links } from "./links.ts";
import { externalIds, INSTANCE_KEY, NIC_KEY, orphans, planNic, type NicStep, type NicWant } from "./plan.ts";
import { INTEGRATION_BRIDGE, type LocalSwitch } from "./switch.ts";

export { Links } from "./links.ts";
export { LocalSwitch } from "./switch.ts";

/** A NIC as the switch has it. */
export interface OurNic {
  tap: string;
  instanceUid: string;
  nic: string;
  installed: boolean;
}

/** What ensure() needs to know of an instance. */
export interface NicOwner {
  instanceUid: string;
  nic: NicStatus;
}

export class Nics {
  readonly #local: LocalSwitch;
  readonly #links: Links;
  readonly #log: Logger;
  readonly #listeners = new Set<(nic: OurNic) => void>();

  constructor(parts: { local: LocalSwitch; links: Links; log: Logger }) {
    this.#local = parts.local;
    this.#links = parts.links;
    this.#log = parts.log;
    this.#local.replica.onChange((changes) => this.#tell(changes));
  }

  /**
   * Makes the tap and its port, or mends them: a tap that the switch lost sight of, a wrong MTU, another logical port.
   * Repeatable; writes nothing when all is right. Throws UserError SwitchDown when the switch does not answer.
   */
  async ensure(owner: NicOwner, user: number, signal?: AbortSignal): Promise<{ tap: string }> {
    const { nic, instanceUid } = owner;
    const tap = tapName(instanceUid, nic.name);
    const want: NicWant = { tap, user, mtu: nic.mtu, mac: nic.mac, port: nic.port, instanceUid, nic: nic.name };
    const steps = planNic({ link: await this.#links.get(tap), port: this.#portOf(tap) }, want);
    for (const step of steps) await this.#run(step, want, signal);
    if (steps.length > 0) this.#log.info({ tap, port: nic.port, steps }, "a NIC was made or mended");
    return { tap };
  }

  /** Takes the port out of the switch, then deletes the tap: in the other order the switch would keep a dead one. Repeatable. */
  async remove(instanceUid: string, nic: string, signal?: AbortSignal): Promise<void> {
    await this.#remove(tapName(instanceUid, nic), signal);
  }

  /** Removes all NICs of an instance that the switch knows of, and those of these names. Repeatable. */
  async removeAll(instanceUid: string, names: readonly string[], signal?: AbortSignal): Promise<void> {
    const found = this.all().flatMap((nic) => (nic.instanceUid === instanceUid ? [nic.tap] : []));
    for (const tap of new Set([...found, ...names.map((name) => tapName(instanceUid, name))])) await this.#remove(tap, signal);
  }

  /** Whether OVN has installed the flows of this tap's port; false when that is not known. */
  installed(tap: string): boolean {
    return this.#local.replica.synced && this.#local.interface(tap)?.externalIds.get("ovn-installed") === "true";
  }

  /** Calls back when a NIC's port changes: installed or not, its interface seen or lost. Returns how to stop. */
  onChange(fn: (nic: OurNic) => void): () => void {
    this.#listeners.add(fn);
    return () => this.#listeners.delete(fn);
  }

  /** Every NIC of ours that the switch has. Throws UserError while the switch cannot be asked. */
  all(): OurNic[] {
    this.#local.root();
    return this.#local.ports().flatMap((port) => port.interfaces.flatMap((one) => ourNic(one.name, one.externalIds) ?? []));
  }

  /**
   * Removes taps and ports of instances that are not there any more. `known` gives every instance of this node, complete; it is
   * asked after the node, so that a NIC made meanwhile is not taken for nobody's. Gives what was removed.
   */
  async sweep(
    known: () => { taps: ReadonlySet<string>; instances: ReadonlySet<string> },
    signal?: AbortSignal,
  ): Promise<string[]> {
    this.#local.root();
    const links = await this.#links.list();
    const found = orphans({ links, ports: this.#local.ports() }, known());
    const names = [...new Set([...found.ports, ...found.taps])];
    for (const name of names) {
      this.#log.warn({ tap: name }, "removing a NIC that no instance of this node has");
      await this.#remove(name, signal);
    }
    return names;
  }

  #portOf(tap: string): ReturnType<LocalSwitch["port"]> {
    this.#local.root();
    return this.#local.port(tap);
  }

  async #run(step: NicStep, want: NicWant, signal: AbortSignal | undefined): Promise<void> {
    switch (step) {
      case "remove-port":
        return this.#removePort(want.tap, signal);
      case "remove-tap":
        return this.#links.remove(want.tap);
      case "add-tap":
        return this.#links.addTap(want.tap, want.user);
      case "set-tap":
        return this.#links.set(want.tap, ["mtu", String(want.mtu), "up"]);
      case "add-port":
        return this.#addPort(want, signal);
      case "set-port":
        return this.#setPort(want);
    }
  }

  async #remove(tap: string, signal: AbortSignal | undefined): Promise<void> {
    await this.#removePort(tap, signal);
    await this.#links.remove(tap);
  }

  /** Resolves when vswitchd has let go of it: only then may a port of that name come again. */
  async #removePort(tap: string, signal: AbortSignal | undefined): Promise<void> {
    const port = this.#portOf(tap);
    if (port === undefined) return;
    const bridge = this.#local.bridge(port.bridge);
    if (bridge === undefined) return;
    const operations = [ops.mutate("Bridge", byUuid(bridge.uuid), [["ports", "delete", [{ uuid: port.uuid }]]])];
    await this.#local.apply(operations, signal === undefined ? {} : { signal });
  }

  /** vswitchd's acting is not waited for: whoever needs the port to be bound waits for `ovn-installed`. */
  async #addPort(want: NicWant, signal: AbortSignal | undefined): Promise<void> {
    const root = this.#local.root();
    const bridge = this.#local.bridge(INTEGRATION_BRIDGE);
    if (bridge === undefined) {
      throw new UserError("SwitchDown", `the node's switch has no bridge ${INTEGRATION_BRIDGE}; look at the ovs pod of the node`);
    }
    await this.#local.client.transact(
      [
        ops.insert("Interface", { name: want.tap, external_ids: mapOf(externalIds(want)) }, "nic"),
        ops.insert("Port", { name: want.tap, interfaces: [namedUuid("nic")] }, "port"),
        ops.mutate("Bridge", byUuid(bridge.uuid), [["ports", "insert", [namedUuid("port")]]]),
        ops.mutate("Open_vSwitch", byUuid(root.uuid), [["next_cfg", "+=", 1]]),
      ],
      signal === undefined ? {} : { signal },
    );
  }

  async #setPort(want: NicWant): Promise<void> {
    const found = this.#local.interface(want.tap);
    if (found === undefined) return;
    const ids = externalIds(want);
    await this.#local.client.transact([
      ops.mutate("Interface", byUuid(found.uuid), [
        ["external_ids", "delete", Object.keys(ids)],
        ["external_ids", "insert", mapOf(ids)],
      ]),
    ]);
  }

  #tell(changes: readonly RowChange[]): void {
    const names = new Set<string>();
    for (const { table, old, now } of changes) {
      const name = (now ?? old)?.["name"];
      if (table === "Interface" && typeof name === "string") names.add(name);
    }
    for (const name of names) {
      const found = this.#local.interface(name);
      const nic = found === undefined ? undefined : ourNic(name, found.externalIds);
      if (nic !== undefined) for (const fn of this.#listeners) fn(nic);
    }
  }
}

function ourNic(tap: string, ids: ReadonlyMap<string, string>): OurNic | undefined {
  const [instanceUid, nic] = [ids.get(INSTANCE_KEY), ids.get(NIC_KEY)];
  if (instanceUid === undefined || nic === undefined) return undefined;
  return { tap, instanceUid, nic, installed: ids.get("ovn-installed") === "true" };
}
