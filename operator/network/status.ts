/** A Network's status, computed in one place. Pure. */
import type { Network, NetworkStatus } from "../../crds/network.ts";
import { setCondition } from "../../kube/index.ts";
import type { NetworkFacts } from "./network-facts.ts";

/** How it stands with the network: in OVN, or why not. */
export interface Verdict {
  readonly ready: boolean;
  readonly reason: string;
  readonly message: string;
}

export const PROGRAMMED: Verdict = { ready: true, reason: "Programmed", message: "its router, switch, DHCP and DNS are in OVN" };

/** Names shown of the instances that use a network; the rest is a number. */
const SHOWN = 5;

/** Why a network that is to be deleted stays; undefined when nothing uses it. */
export const inUse = (names: readonly string[]): Verdict | undefined => {
  if (names.length === 0) return undefined;
  const shown = [...names].sort().slice(0, SHOWN).join(", ");
  const rest = names.length > SHOWN ? ` and ${names.length - SHOWN} more` : "";
  const message = `it is deleted once no instance uses it: ${shown}${rest}; delete ${names.length === 1 ? "it" : "them"}`;
  return { ready: false, reason: "InUse", message };
};

export interface StatusInput {
  network: Network;
  facts: NetworkFacts;
  verdict: Verdict;
  instances: number;
  mtu: number;
  now: Date;
}

/** The whole status. The same input but for the time gives the same status. */
export const networkStatus = ({ network, facts, verdict, instances, mtu, now }: StatusInput): NetworkStatus => ({
  observedGeneration: network.metadata.generation,
  conditions: setCondition(
    network.status?.conditions,
    {
      type: "Ready",
      status: verdict.ready ? "True" : "False",
      reason: verdict.reason,
      message: verdict.message,
      observedGeneration: network.metadata.generation,
    },
    now,
  ),
  instances,
  ...(facts.ipv4 ? { ipv4Gateway: facts.ipv4.gateway } : {}),
  ...(facts.ipv6 ? { ipv6Gateway: facts.ipv6.gateway } : {}),
  domain: facts.domain,
  mtu,
});

const COALESCE_MS = 1_000;

/** For how long a changed status is held back; 0 writes it now. A mere count waits for its like, what somebody waits for does not. */
export const holdBackMs = (have: NetworkStatus | undefined, want: NetworkStatus, sinceWriteMs: number | undefined): number => {
  const ready = (status: NetworkStatus | undefined): string =>
    (status?.conditions ?? []).map(({ type, status: is, reason }) => `${type} ${is} ${reason}`).join();
  if (sinceWriteMs === undefined || have?.observedGeneration !== want.observedGeneration || ready(have) !== ready(want)) return 0;
  return Math.max(0, COALESCE_MS - sinceWriteMs);
};
