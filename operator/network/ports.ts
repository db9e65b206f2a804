/** Ports and names of instances in OVN. */
import type { Instance, NicStatus } from "../../crds/instance.ts";
import type { Network } from "../../crds/network.ts";
import { type Informer, keyOf, keyText, type Logger, type ObjectKey, parseKey } from "../../kube/index.ts";
import { OvsdbError } from "../../ovsdb/index.ts";
import { errorText } from "../../ovsdb/index.ts";
import { instanceRows } from "./desired-instance.ts";
import { type NetworkFacts, networkFacts } from "./network-facts.ts";
import type { Northbound } from "./northbound.ts";
import type { Problem } from "./problem.ts";
import { instanceOwner, type Owner } from "./rows.ts";
import { Waiting } from "./waiting.ts";

export interface PortsOptions {
  northbound: Northbound;
  networks: Pick<Informer<Network>, "get" | "onChange">;
  log: Logger;
  /** Called for instances that should be reconciled again. */
  wake: (key: ObjectKey) => void;
}

const OVN = "ovn";

export class Ports {
  readonly #opts: PortsOptions;
  /** Instances whose ports could not be made, by what they wait for. */
  readonly #waiting = new Waiting();

  constructor(opts: PortsOptions) {
    this.#opts = opts;
    opts.northbound.onOwner((owner, name) => this.#changed(owner, name));
    opts.northbound.onSync(() => this.#wake(OVN));
  }

  /**
   * Makes OVN have the ports and names of this instance, and nothing else of it: one transaction, none when nothing differs.
   * Without a node nothing is done yet. `chassis`: the nodes that may have the ports, two while it moves; default: its node. What heals by itself or by the user is a problem, and the instance is woken when it is
   * worth another try; repeat with back-off all the same.
   */
  async ensurePorts(
    instance: Instance,
    opts: { chassis?: readonly string[]; nics?: readonly NicStatus[]; signal?: AbortSignal } = {},
  ): Promise<{ ready: true } | { problem: Problem }> {
    const key = keyText(keyOf(instance));
    const node = instance.status?.nodeName;
    const chassis = opts.chassis ?? (node === undefined ? [] : [node]);
    if (chassis.length === 0) return { ready: true };
    const plan: { nic: NicStatus; network: NetworkFacts }[] = [];
    for (const nic of opts.nics ?? instance.status?.nics ?? []) {
      const networkKey = `${instance.metadata.namespace ?? "default"}/${nic.network}`;
      const network = this.#opts.networks.get(parseKey(networkKey));
      if (!network)
        return this.#later(key, networkKey, "NetworkNotReady", `nics[${nic.name}]: there is no Network ${networkKey}; create it`);
      plan.push({ nic, network: networkFacts(network) });
    }
    try {
      return await this.#apply(instance, chassis, plan, opts.signal);
    } catch (error) {
      if (!(error instanceof OvsdbError))
        return this.#later(key, OVN, "OVNUnreachable", `${errorText(error)}; it is tried again`);
      this.#opts.log.warn({ instance: key, error: errorText(error) }, "OVN refused an instance's ports");
      return this.#later(key, OVN, "PortRefused", `OVN's northbound database refused its ports: ${error.message}`);
    }
  }

  /** Removes every row of the instance; resolves when they are gone. Rejects when OVN cannot be asked. Repeatable. */
  async removePorts(
    instance: { metadata: { uid: string; namespace?: string | undefined; name: string } },
    signal?: AbortSignal,
  ): Promise<void> {
    const key = keyText(keyOf(instance));
    this.#waiting.clear(key);
    await this.#opts.northbound.apply(instanceOwner(instance.metadata.uid), key, () => [], signal);
  }

  async #apply(
    instance: Instance,
    chassis: readonly string[],
    nics: readonly { nic: NicStatus; network: NetworkFacts }[],
    signal: AbortSignal | undefined,
  ): Promise<{ ready: true } | { problem: Problem }> {
    const { northbound } = this.#opts;
    const key = keyText(keyOf(instance));
    const { uid, name } = instance.metadata;
    const plan = () => instanceRows({ uid, name, chassis, nics, dnsOptions: northbound.dnsOptions });
    const applied = await northbound.apply(instanceOwner(uid), key, plan, signal);
    if ("missing" in applied) {
      const waitsFor = nics.find(({ network }) => applied.missing.owner === `network/${network.uid}`)?.network.key ?? OVN;
      return this.#later(key, waitsFor, "NetworkNotReady", `Network ${waitsFor} is not in OVN yet; its Ready condition says why`);
    }
    this.#waiting.clear(key);
    return { ready: true };
  }

  #later(key: string, waitsFor: string, reason: string, message: string): { problem: Problem } {
    this.#waiting.set(key, [waitsFor]);
    return { problem: { reason, message } };
  }

  /** Somebody else changed rows: of an instance, then it is to be looked at; of a network, then those that wait for it. */
  #changed(owner: Owner, name: string): void {
    if (owner.startsWith("instance/")) this.#opts.wake(parseKey(name));
    else this.networkChanged(name);
  }

  /** The network ("<namespace>/<name>") was written to OVN, or changed: those who wait for it may try again. */
  networkChanged(name: string): void {
    this.#wake(name);
  }

  #wake(thing: string): void {
    for (const key of this.#waiting.on(thing)) this.#opts.wake(parseKey(key));
  }
}
