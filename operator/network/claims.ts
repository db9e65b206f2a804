/** Who holds, or wishes for, which address, MAC and name on each network. Every question and change costs as much as it concerns. */

export interface Claim {
  readonly uid: string;
  /** "<namespace>/<name>" of the instance. */
  readonly key: string;
  readonly nic: string;
  /** When the instance was made, milliseconds. */
  readonly created: number;
  /** Given (it stands in a status, or will): stronger than a mere wish in a spec. */
  readonly given: boolean;
}

/** "4 10.10.0.5", "6 fd42::5", "mac 52:54:00:..", "name web" */
export type Thing = string;
export const ipThing = (family: 4 | 6, address: string): Thing => `${family} ${address}`;
export const macThing = (mac: string): Thing => `mac ${mac.toLowerCase()}`;
export const nameThing = (name: string): Thing => `name ${name}`;

/** What one instance claims. */
export interface Entry {
  readonly network: string;
  readonly thing: Thing;
  readonly claim: Claim;
}

const before = (a: Claim, b: Claim): boolean => {
  if (a.given !== b.given) return a.given;
  if (a.created !== b.created) return a.created < b.created;
  if (a.uid !== b.uid) return a.uid < b.uid;
  return a.nic < b.nic;
};

/** What was given stays given; of mere wishes the older instance's comes first. */
export class Claims {
  /** By network and thing. More than one claim on a thing is a conflict, and rare. */
  readonly #things = new Map<string, Map<Thing, Claim[]>>();
  readonly #entries = new Map<string, readonly Entry[]>();
  /** IPv4 addresses claimed on each network. */
  readonly #counts = new Map<string, number>();

  /** Replaces what an instance claims. Returns the network and things that it claimed before and no longer does. */
  set(uid: string, entries: readonly Entry[]): { network: string; thing: Thing }[] {
    const old = this.#entries.get(uid) ?? [];
    for (const entry of old) this.#take(entry);
    for (const entry of entries) this.#put(entry);
    if (entries.length === 0) this.#entries.delete(uid);
    else this.#entries.set(uid, entries);
    return old.filter(({ network, thing }) => !entries.some((one) => one.network === network && one.thing === thing));
  }

  /** What an instance claims. */
  of(uid: string): readonly Entry[] {
    return this.#entries.get(uid) ?? [];
  }

  /** A claim that comes before that of this NIC; any other claim where the NIC has none. */
  strongerThan(network: string, thing: Thing, uid: string, nic: string): Claim | undefined {
    const claims = this.#things.get(network)?.get(thing) ?? [];
    const own = claims.find((one) => one.uid === uid && one.nic === nic);
    return claims.find((one) => one !== own && (!own || before(one, own)));
  }

  /** Anybody's claim but this NIC's. */
  byOthers(network: string, thing: Thing, uid: string, nic: string): Claim | undefined {
    return this.#things
      .get(network)
      ?.get(thing)
      ?.find((one) => one.uid !== uid || one.nic !== nic);
  }

  /** How many IPv4 addresses of the network are claimed. */
  count4(network: string): number {
    return this.#counts.get(network) ?? 0;
  }

  #put({ network, thing, claim }: Entry): void {
    const things = this.#things.get(network) ?? new Map<Thing, Claim[]>();
    this.#things.set(network, things);
    const there = things.get(thing);
    if (!there && thing.startsWith("4 ")) this.#counts.set(network, this.count4(network) + 1);
    things.set(thing, [...(there ?? []), claim]);
  }

  #take({ network, thing, claim }: Entry): void {
    const things = this.#things.get(network);
    const left = things?.get(thing)?.filter((one) => one !== claim) ?? [];
    if (left.length > 0) things?.set(thing, left);
    else {
      things?.delete(thing);
      if (thing.startsWith("4 ")) this.#counts.set(network, this.count4(network) - 1);
      if (things?.size === 0) this.#things.delete(network);
    }
  }
}
