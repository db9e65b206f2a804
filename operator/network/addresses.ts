/** Addresses, MACs and names of instances: given once, written to their status, kept. */
import type { Instance, NicSpec, NicStatus } from "../../crds/instance.ts";
import { portName } from "../../crds/names.ts";
import type { Network } from "../../crds/network.ts";
import { type Informer, keyOf, keyText, type ObjectKey, parseKey } from "../../kube/index.ts";
import { chooseIpv4, chooseIpv6, chooseMac } from "./choose.ts";
import { type Claim, Claims, type Entry, ipThing, macThing, nameThing, type Thing } from "./claims.ts";
import { type NetworkFacts, networkFacts } from "./network-facts.ts";
import { type Problem, ProblemError } from "./problem.ts";
import { routerMac } from "./rows.ts";
import { addressText, contains, parseAddress, reservedFor, usableCount } from "./subnet.ts";
import { Waiting } from "./waiting.ts";

type Cache<T extends Instance | Network> = Pick<Informer<T>, "get" | "onChange" | "hasSynced">;

export interface AddressesOptions {
  instances: Cache<Instance>;
  networks: Cache<Network>;
  mtu: number;
  /** Called for instances that should be reconciled again: what they waited for may now be had. */
  wake: (key: ObjectKey) => void;
}

const networkKeyOf = (instance: Instance, network: string): string => `${instance.metadata.namespace ?? "default"}/${network}`;
const canonicalAddress = (text: string, family: 4 | 6): string | undefined => {
  const value = parseAddress(text, family);
  return value === undefined ? undefined : addressText(value, family);
};

export class Addresses {
  readonly #opts: AddressesOptions;
  readonly #claims = new Claims();
  readonly #waiting = new Waiting();

  constructor(opts: AddressesOptions) {
    this.#opts = opts;
    opts.instances.onChange(({ old, now }) => this.#seen(old, now));
    opts.networks.onChange(({ key, old, now }) => {
      if (old?.metadata.resourceVersion !== now?.metadata.resourceVersion) this.#wake(`${keyText(key)} network`);
    });
  }

  /**
   * MACs, addresses and port names of all NICs, [] for an instance without any: the same every time. What stands in its status
   * is kept; what is given now is remembered until the cache shows it there. A problem gives nothing, and the instance is woken
   * when it may have gone. Throws before the caches have synced: an empty one would give away what others have.
   */
  assign(instance: Instance): { nics: NicStatus[] } | { problem: Problem } {
    const { instances, networks } = this.#opts;
    if (!instances.hasSynced || !networks.hasSynced) throw new Error("addresses are given only once the caches have synced");
    const key = keyText(keyOf(instance));
    // What the caller has may be newer than the cache; without its wishes it could not be compared with others.
    this.#claims.set(instance.metadata.uid, this.#entriesOf(instance));
    const nics: NicStatus[] = [];
    try {
      for (const spec of instance.spec.nics ?? []) nics.push(this.#assignNic(instance, spec, nics));
    } catch (error) {
      if (!(error instanceof ProblemError)) throw error;
      this.#waiting.set(key, error.waitsFor);
      return { problem: error.problem };
    }
    this.#waiting.clear(key);
    this.#claims.set(instance.metadata.uid, this.#entriesOf(instance, nics));
    return { nics };
  }

  /** Forgets everything of an instance. Repeatable; its deletion in the cache does the same. */
  release(uid: string): void {
    this.#freed(this.#claims.set(uid, []));
  }

  #seen(old: Instance | undefined, now: Instance | undefined): void {
    if (!now) {
      if (!old) return;
      this.#waiting.clear(keyText(keyOf(old)));
      this.release(old.metadata.uid);
      return;
    }
    this.#freed(this.#claims.set(now.metadata.uid, this.#entriesOf(now)));
  }

  /** What an instance has (`given`, its status, and what we gave it and has not been written yet) and what it wishes for. */
  #entriesOf(instance: Instance, given?: readonly NicStatus[]): Entry[] {
    const { uid, name } = instance.metadata;
    const claim = (nic: string, isGiven: boolean): Claim => ({
      uid,
      key: keyText(keyOf(instance)),
      nic,
      created: Date.parse(instance.metadata.creationTimestamp),
      given: isGiven,
    });
    const entries = new Map<string, Entry>();
    const add = (network: string, nic: string, things: readonly (Thing | undefined)[], isGiven: boolean): void => {
      for (const thing of things) {
        const id = `${network} ${nic} ${thing}`;
        if (thing !== undefined && !entries.has(id)) entries.set(id, { network, thing, claim: claim(nic, isGiven) });
      }
    };
    const written = given ?? instance.status?.nics ?? [];
    for (const nic of written) add(networkKeyOf(instance, nic.network), nic.name, [...thingsOf(nic), nameThing(name)], true);
    const unwritten = new Set((instance.spec.nics ?? []).map((nic) => nic.name));
    for (const nic of written) unwritten.delete(nic.name);
    // Given by us, not yet written: it stays ours.
    for (const { network, thing, claim: mine } of given ? [] : this.#claims.of(uid)) {
      if (mine.given && unwritten.has(mine.nic)) add(network, mine.nic, [thing], true);
    }
    for (const nic of instance.spec.nics ?? []) {
      add(networkKeyOf(instance, nic.network), nic.name, [...thingsOf(nic), nameThing(name)], false);
    }
    return [...entries.values()];
  }

  #assignNic(instance: Instance, spec: NicSpec, others: readonly NicStatus[]): NicStatus {
    const { uid, name, namespace = "default" } = instance.metadata;
    const networkKey = networkKeyOf(instance, spec.network);
    const kept = instance.status?.nics?.find((nic) => nic.name === spec.name && nic.network === spec.network);
    const network = this.#network(spec, networkKey, kept !== undefined);
    const nic = new NicAssignment({ instance, spec, network, claims: this.#claims, others });
    nic.checkName();
    const mac = nic.mac(kept?.mac);
    const ipv4 = nic.ipv4(kept?.ipv4);
    const ipv6 = nic.ipv6(mac, kept?.ipv6);
    return {
      name: spec.name,
      network: spec.network,
      mac,
      ...(ipv4 === undefined ? {} : { ipv4 }),
      ...(ipv6 === undefined ? {} : { ipv6 }),
      port: portName(namespace, name, spec.name, uid),
      mtu: this.#opts.mtu,
    };
  }

  #network(spec: NicSpec, networkKey: string, kept: boolean): NetworkFacts {
    const network = this.#opts.networks.get(parseKey(networkKey));
    const waitsFor = [`${networkKey} network`];
    const where = `nics[${spec.name}]`;
    if (!network) {
      const message = `${where}: there is no Network ${networkKey}; create it, or name another in ${where}.network`;
      throw new ProblemError({ reason: "NetworkNotFound", message }, waitsFor);
    }
    if (network.metadata.deletionTimestamp !== undefined && !kept) {
      const message = `${where}: Network ${networkKey} is being deleted; name another in ${where}.network, or create it anew when it is gone`;
      throw new ProblemError({ reason: "NetworkDeleting", message }, waitsFor);
    }
    return networkFacts(network);
  }

  #freed(things: readonly { network: string; thing: Thing }[]): void {
    for (const { network, thing } of things) {
      this.#wake(`${network} ${thing}`);
      // One address has room for one.
      if (thing.startsWith("4 ")) this.#wake(`${network} room`, 1);
    }
  }

  #wake(thing: string, limit?: number): void {
    for (const key of this.#waiting.on(thing, limit)) this.#opts.wake(parseKey(key));
  }
}

const thingsOf = (nic: {
  mac?: string | undefined;
  ipv4?: string | undefined;
  ipv6?: string | undefined;
}): (Thing | undefined)[] => {
  const [ipv4, ipv6] = [nic.ipv4 && canonicalAddress(nic.ipv4, 4), nic.ipv6 && canonicalAddress(nic.ipv6, 6)];
  return [nic.mac && macThing(nic.mac), ipv4 && ipThing(4, ipv4), ipv6 && ipThing(6, ipv6)];
};

interface NicInput {
  instance: Instance;
  spec: NicSpec;
  network: NetworkFacts;
  claims: Claims;
  /** NICs of the same instance that came before. */
  others: readonly NicStatus[];
}

/** Decides for one NIC, against everybody's claims. Throws ProblemError with a sentence that says what to change. */
class NicAssignment {
  readonly #in: NicInput;
  readonly #where: string;

  constructor(input: NicInput) {
    this.#in = input;
    this.#where = `nics[${input.spec.name}]`;
  }

  checkName(): void {
    const { name } = this.#in.instance.metadata;
    const other = this.#strongerThan(nameThing(name));
    if (other && other.uid !== this.#in.instance.metadata.uid) {
      const fqdn = `${name}.${this.#in.network.domain}`;
      throw this.#taken("NameInUse", nameThing(name), `the name ${fqdn} is that of instance ${other.key}; rename this one`);
    }
  }

  mac(kept: string | undefined): string {
    const { spec, network } = this.#in;
    const wanted = spec.mac?.toLowerCase();
    if (wanted === routerMac(network.uid)) {
      throw this.#refused("MacInUse", `mac ${wanted} is the router's of network ${network.key}; choose another or leave it out`);
    }
    const mac = wanted ?? kept ?? chooseMac(this.#seed, (one) => this.#isFree(macThing(one)));
    const holder = this.#strongerThan(macThing(mac));
    if (holder) throw this.#inUse("MacInUse", macThing(mac), `mac ${mac}`, "mac", holder);
    return mac;
  }

  ipv4(kept: string | undefined): string | undefined {
    const { spec, network, claims, others } = this.#in;
    if (!network.ipv4) {
      if (spec.ipv4 === undefined) return undefined;
      throw this.#noFamily(4);
    }
    const { subnet } = network.ipv4;
    if (spec.ipv4 !== undefined) return this.#wished(4, spec.ipv4);
    if (kept !== undefined && this.#canKeep(4, kept)) return kept;
    const chosen = chooseIpv4(subnet, this.#seed, claims.count4(network.key) + others.length, (one) =>
      this.#isFree(ipThing(4, one)),
    );
    if (chosen !== undefined) return chosen;
    throw new ProblemError(
      {
        reason: "NetworkFull",
        message: `${this.#where}: all ${usableCount(subnet)} IPv4 addresses of network ${network.key} (${subnet.cidr}) are in use; delete an instance on it, or use a larger network`,
      },
      [`${network.key} room`],
    );
  }

  ipv6(mac: string, kept: string | undefined): string | undefined {
    const { spec, network } = this.#in;
    if (!network.ipv6) {
      if (spec.ipv6 === undefined) return undefined;
      throw this.#noFamily(6);
    }
    if (spec.ipv6 !== undefined) return this.#wished(6, spec.ipv6);
    if (kept !== undefined && this.#canKeep(6, kept)) return kept;
    return chooseIpv6(network.ipv6.subnet, mac, this.#seed, (one) => this.#isFree(ipThing(6, one)));
  }

  get #seed(): string {
    return `${this.#in.instance.metadata.uid}/${this.#in.spec.name}`;
  }

  /** An address that the spec names. */
  #wished(family: 4 | 6, text: string): string {
    const { network } = this.#in;
    const subnet = family === 4 ? network.ipv4?.subnet : network.ipv6?.subnet;
    const value = parseAddress(text, family);
    const field = `ipv${family}`;
    if (!subnet || value === undefined || !contains(subnet, value)) {
      throw this.#refused(
        "AddressOutsideNetwork",
        `${field} ${text} is not in ${subnet?.cidr ?? "any subnet"} of network ${network.key}; choose an address of that network or leave it out`,
      );
    }
    const reserved = reservedFor(subnet, value);
    const address = addressText(value, family);
    if (reserved) {
      throw this.#refused(
        "AddressReserved",
        `${field} ${address} is ${reserved} of network ${network.key}; choose another address or leave it out`,
      );
    }
    const holder = this.#strongerThan(ipThing(family, address));
    if (holder) throw this.#inUse("AddressInUse", ipThing(family, address), `${field} ${address}`, field, holder);
    return address;
  }

  /** What was given is kept, unless the network was made anew with other addresses, or an older instance holds it too (a restored backup). */
  #canKeep(family: 4 | 6, kept: string): boolean {
    const { network } = this.#in;
    const subnet = family === 4 ? network.ipv4?.subnet : network.ipv6?.subnet;
    const value = parseAddress(kept, family);
    if (!subnet || value === undefined || !contains(subnet, value) || reservedFor(subnet, value) !== undefined) return false;
    const holder = this.#strongerThan(ipThing(family, kept));
    if (holder) throw this.#inUse("AddressInUse", ipThing(family, kept), `its ipv${family} ${kept}`, undefined, holder);
    return true;
  }

  /** Free for a made-up value: nobody else holds it or wishes for it, and no other NIC of this instance has just got it. */
  #isFree(thing: Thing): boolean {
    const { network, instance, spec, claims, others } = this.#in;
    if (thing === macThing(routerMac(network.uid))) return false;
    if (claims.byOthers(network.key, thing, instance.metadata.uid, spec.name)) return false;
    return !others.some((nic) => nic.network === spec.network && thingsOf(nic).includes(thing));
  }

  #strongerThan(thing: Thing): Claim | undefined {
    const { network, instance, spec, claims } = this.#in;
    return claims.strongerThan(network.key, thing, instance.metadata.uid, spec.name);
  }

  #noFamily(family: 4 | 6): ProblemError {
    const { network } = this.#in;
    return this.#refused(
      "NoSuchFamily",
      `ipv${family} is given, but network ${network.key} has no ipv${family}; leave it out or use another network`,
    );
  }

  #inUse(reason: string, thing: Thing, what: string, field: string | undefined, holder: Claim): ProblemError {
    const own = holder.uid === this.#in.instance.metadata.uid;
    const who = own ? `nics[${holder.nic}] of the same instance` : `instance ${holder.key}`;
    const remedy = field === undefined ? "delete one of the two" : `choose another ${field} or leave it out`;
    return this.#taken(reason, thing, `${what} is in use by ${who}; ${remedy}`);
  }

  #taken(reason: string, thing: Thing, sentence: string): ProblemError {
    return new ProblemError({ reason, message: `${this.#where}: ${sentence}` }, [`${this.#in.network.key} ${thing}`]);
  }

  #refused(reason: string, sentence: string): ProblemError {
    return new ProblemError({ reason, message: `${this.#where}: ${sentence}` }, [`${this.#in.network.key} network`]);
  }
}
