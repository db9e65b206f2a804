/** Networks of instances: Network objects and instances' NICs as rows of OVN's northbound database. */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import type { Instance } from "../../crds/instance.ts";
import type { Network } from "../../crds/network.ts";
import {
  type Change,
  type Clock,
  Controller,
  type EventRecorder,
  type Informer,
  type KubeClient,
  keyText,
  type Logger,
  type ObjectKey,
  parseKey,
  realClock,
} from "../../kube/index.ts";
import { OvsdbClient, type TlsFiles } from "../../ovsdb/index.ts";
import { Recent } from "../recent.ts";
import { Addresses } from "./addresses.ts";
import { endpointInformer, remotesOf } from "./endpoints.ts";
import { makeGarbageController } from "./garbage.ts";
import { Northbound } from "./northbound.ts";
import { Ports } from "./ports.ts";
import { type ReconcileContext, reconcileNetwork } from "./reconcile.ts";
import { type NetworkSettings, networkSettings, type NorthboundSettings } from "./settings.ts";

export type { Addresses } from "./addresses.ts";
export type { Ports } from "./ports.ts";
export { type NetworkSettings, networkSettings } from "./settings.ts";

const DATABASE = "OVN_Northbound";

/** Networks that an instance is on, or still has addresses of. */
const networkKeys = ({ metadata, spec, status }: Instance): string[] => {
  const names = [...(spec.nics ?? []), ...(status?.nics ?? [])].map(({ network }) => network);
  return [...new Set(names)].map((name) => `${metadata.namespace ?? "default"}/${name}`);
};

/** Indexes that the instances' informer must have for this room. */
export const instanceIndexes = { network: networkKeys };

export interface NetworkContext {
  client: KubeClient;
  /** With `instanceIndexes`; started by its owner. */
  instances: Informer<Instance>;
  networks: Informer<Network>;
  events: EventRecorder;
  log: Logger;
  clock?: Clock;
}

export interface Networks {
  readonly addresses: Addresses;
  readonly ports: Ports;
  readonly controller: Controller;
  /** Whether OVN's northbound database is connected and copied. */
  readonly connected: () => boolean;
  /** Works until the signal aborts; resolves when everything has stopped. Once. */
  start(signal: AbortSignal): Promise<void>;
  /** Calls `fn` for instances that should be reconciled again for the network's sake. Returns how to stop. */
  onInstance(fn: (key: ObjectKey) => void): () => void;
}

/** Puts the room together; nothing runs or connects before start(). Throws for a wrong environment, naming the variable. */
export const setupNetworks = (ctx: NetworkContext, settings: NetworkSettings = networkSettings(process.env)): Networks => {
  const { client, instances, networks, events } = ctx;
  const log = ctx.log.child({ room: "network" });
  const clock = ctx.clock ?? realClock;
  const listeners = new Set<(key: ObjectKey) => void>();
  const wake = (key: ObjectKey): void => {
    for (const fn of listeners) fn(key);
  };

  const connection = connectionTo(settings.northbound, client, log);
  const northbound = new Northbound({ client: connection.ovsdb, scope: settings.scope, log });
  const addresses = new Addresses({ instances, networks, mtu: settings.mtu, wake });
  const ports = new Ports({ northbound, networks, log, wake });
  const context: ReconcileContext = {
    client,
    instances,
    recent: new Recent(networks, clock),
    events,
    northbound,
    log,
    clock,
    mtu: settings.mtu,
    writtenAt: new Map(),
    troubled: new Set(),
    written: (key) => ports.networkChanged(key),
  };
  const controller = new Controller({
    name: "network",
    clock,
    logger: log,
    reconcile: (key, signal) => reconcileNetwork(key, context, signal),
  })
    .watch(networks)
    .watch(instances, changedNetworks);
  northbound.onOwner((owner, name) => {
    if (owner.startsWith("network/") && name !== "") controller.enqueue(parseKey(name));
  });
  northbound.onSync(() => {
    for (const key of context.troubled) controller.enqueue(parseKey(key));
  });
  const garbage = makeGarbageController({ client, northbound, instances, networks, log });

  return {
    addresses,
    ports,
    controller,
    connected: () => northbound.synced,
    start: async (signal) => {
      connection.start(signal);
      await Promise.all([controller.start(signal), garbage.start(signal)]);
    },
    onInstance: (fn) => {
      listeners.add(fn);
      return () => listeners.delete(fn);
    },
  };
};

/** Networks whose instances changed: those joined or left, none for a mere change of an instance's state. */
const changedNetworks = ({ old, now }: Change<Instance>): ObjectKey[] => {
  const [before, after] = [old ? networkKeys(old) : [], now ? networkKeys(now) : []];
  return [...before.filter((key) => !after.includes(key)), ...after.filter((key) => !before.includes(key))].map(parseKey);
};

const readTls = async ({ tlsDirectory = "", serverName }: NorthboundSettings): Promise<TlsFiles> => {
  const read = (name: string): Promise<string> => readFile(join(tlsDirectory, name), "utf8");
  const [ca, cert, key] = await Promise.all([read("ca.crt"), read("tls.crt"), read("tls.key")]);
  return { ca, cert, key, ...(serverName === undefined ? {} : { serverName }) };
};

/** A client of the northbound database, found where the settings say. */
const connectionTo = (
  settings: NorthboundSettings,
  client: KubeClient,
  log: Logger,
): { ovsdb: OvsdbClient; start: (signal: AbortSignal) => void } => {
  const slices = settings.service ? endpointInformer(client, settings.service) : undefined;
  const ovsdb = new OvsdbClient({
    remotes: slices ? () => remotesOf(slices.list(), settings.tlsDirectory !== undefined) : settings.remotes,
    database: DATABASE,
    leaderOnly: true,
    // Read at each attempt: a renewed certificate is taken without a restart.
    ...(settings.tlsDirectory === undefined ? {} : { tls: () => readTls(settings) }),
    log,
  });
  const start = (signal: AbortSignal): void => {
    slices?.onChange(({ key, now }) => {
      log.debug(
        { slice: keyText(key), endpoints: now?.endpoints?.length ?? 0 },
        "endpoints of OVN's northbound database changed",
      );
      ovsdb.retryNow();
    });
    slices?.start(signal);
    ovsdb.start(signal);
  };
  return { ovsdb, start };
};
