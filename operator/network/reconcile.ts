/** Keeps one Network as its spec says: its rows in OVN, its status, and its end. */
import type { Instance } from "../../crds/instance.ts";
import { API_VERSION, NETWORK_FINALIZER, OPERATOR_MANAGER } from "../../crds/names.ts";
import type { Network } from "../../crds/network.ts";
import { networks as networkType } from "../../crds/resources.ts";
import {
  type Clock,
  ensureFinalizer,
  errorText,
  type EventRecorder,
  findCondition,
  type Informer,
  type KubeClient,
  keyText,
  type Logger,
  type ObjectKey,
  removeFinalizer,
  type Requeue,
  sameStatus,
} from "../../kube/index.ts";
import { OvsdbError } from "../../ovsdb/index.ts";
import type { Recent } from "../recent.ts";
import { networkRows } from "./desired-network.ts";
import { networkFacts } from "./network-facts.ts";
import type { Northbound } from "./northbound.ts";
import { networkOwner } from "./rows.ts";
import { holdBackMs, inUse, networkStatus, PROGRAMMED, type Verdict } from "./status.ts";

export interface ReconcileContext {
  client: KubeClient;
  instances: Informer<Instance>;
  recent: Recent<Network>;
  events: EventRecorder;
  northbound: Northbound;
  log: Logger;
  clock: Clock;
  mtu: number;
  /** When each network's status was last written here, by uid; forgetting it costs a write. */
  writtenAt: Map<string, number>;
  /** Networks that OVN did not take; looked at again when it is back. */
  troubled: Set<string>;
  /** Called when a network's rows were written. */
  written: (key: string) => void;
}

/** OVN that comes back tells so; this is for what it does not tell. */
const RETRY_MS = 15_000;

/** Level-triggered: reads the world anew each time. */
export const reconcileNetwork = async (key: ObjectKey, ctx: ReconcileContext, signal: AbortSignal): Promise<Requeue | void> => {
  const seen = ctx.recent.get(key);
  if (!seen) {
    ctx.troubled.delete(keyText(key));
    return undefined; // rows that its finalizer did not see off are the garbage controller's
  }
  const users = ctx.instances.byIndex("network", keyText(key)).map(({ metadata }) => metadata.name);
  if (seen.metadata.deletionTimestamp !== undefined) return release(seen, users, ctx, signal);
  const network = await ensureFinalizer(ctx.client, networkType, seen, NETWORK_FINALIZER);
  if (network !== seen) ctx.recent.put(network);
  const verdict = await program(network, ctx, signal);
  const later = await writeStatus(network, users.length, verdict, ctx);
  return verdict.ready || later ? later : { afterMs: RETRY_MS };
};

/** Brings the network's own rows to what they should be. */
const program = async (network: Network, ctx: ReconcileContext, signal: AbortSignal): Promise<Verdict> => {
  const facts = networkFacts(network);
  try {
    const applied = await ctx.northbound.apply(networkOwner(facts.uid), facts.key, () => networkRows(facts, ctx), signal);
    ctx.troubled.delete(facts.key);
    if ("wrote" in applied && applied.wrote) ctx.log.info({ network: facts.key }, "written to OVN");
    ctx.written(facts.key);
    return PROGRAMMED;
  } catch (error) {
    ctx.troubled.add(facts.key);
    return refusal(error);
  }
};

const refusal = (error: unknown): Verdict =>
  error instanceof OvsdbError
    ? { ready: false, reason: "OVNRefused", message: `OVN's northbound database refused its rows: ${error.message}` }
    : { ready: false, reason: "OVNUnreachable", message: `${errorText(error)}; it is tried again` };

/** Removes rows and finalizer once nothing uses the network; says who does until then. */
const release = async (
  network: Network,
  users: readonly string[],
  ctx: ReconcileContext,
  signal: AbortSignal,
): Promise<Requeue | void> => {
  const { uid, finalizers } = network.metadata;
  if (finalizers?.includes(NETWORK_FINALIZER) !== true) return undefined;
  const facts = networkFacts(network);
  const used = inUse(users);
  if (used) return writeStatus(network, users.length, used, ctx);
  try {
    await ctx.northbound.apply(networkOwner(uid), facts.key, () => [], signal);
  } catch (error) {
    ctx.troubled.add(facts.key);
    return (await writeStatus(network, 0, refusal(error), ctx)) ?? { afterMs: RETRY_MS };
  }
  await removeFinalizer(ctx.client, networkType, network, NETWORK_FINALIZER);
  ctx.troubled.delete(facts.key);
  ctx.writtenAt.delete(uid);
  ctx.events.event(network, "Normal", "Released", "Release", "its router, switch, DHCP and DNS are gone from OVN");
  ctx.log.info({ network: facts.key }, "released");
  return undefined;
};

/** The one place that writes a network's status; nothing when nothing changed, later when it changes too often. */
const writeStatus = async (network: Network, count: number, verdict: Verdict, ctx: ReconcileContext): Promise<Requeue | void> => {
  const { name, namespace, uid } = network.metadata;
  const now = new Date(ctx.clock.now());
  const want = networkStatus({ network, facts: networkFacts(network), verdict, instances: count, mtu: ctx.mtu, now });
  if (sameStatus(network.status, want)) return undefined;
  const last = ctx.writtenAt.get(uid);
  const wait = holdBackMs(network.status, want, last === undefined ? undefined : ctx.clock.monotonic() - last);
  if (wait > 0) return { afterMs: wait };
  ctx.writtenAt.set(uid, ctx.clock.monotonic());
  const metadata = { name, uid, ...(namespace === undefined ? {} : { namespace }) };
  const draft = { apiVersion: API_VERSION, kind: "Network" as const, metadata, status: want };
  ctx.recent.put(await ctx.client.apply(networkType, draft, { manager: OPERATOR_MANAGER, subresource: "status" }));
  tell(network, verdict, ctx);
  return undefined;
};

/** An event for each transition: ready or not, and why. */
const tell = (network: Network, { ready, reason, message }: Verdict, { events }: ReconcileContext): void => {
  const before = findCondition(network.status?.conditions, "Ready");
  if (before?.reason === reason && before.status === (ready ? "True" : "False")) return;
  events.event(network, ready ? "Normal" : "Warning", reason, "Program", message);
};
