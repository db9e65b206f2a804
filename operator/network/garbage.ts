/** Rows whose object is gone without our clean-up (a finalizer removed by hand): found, proven, removed. */
import type { Instance } from "../../crds/instance.ts";
import type { Network } from "../../crds/network.ts";
import { instances as instanceType, networks as networkType } from "../../crds/resources.ts";
import { Controller, type Informer, type KubeClient, type Logger, type ObjectKey, parseKey } from "../../kube/index.ts";
import type { Northbound } from "./northbound.ts";

export interface GarbageOptions {
  client: KubeClient;
  northbound: Northbound;
  instances: Informer<Instance>;
  networks: Informer<Network>;
  log: Logger;
}

/** An owner as a key: "instance/<uid>" is namespace "instance", name "<uid>". */
const ownerOf = (key: ObjectKey): string => `${key.namespace}/${key.name}`;

/** Removes rows only when the API server itself says that their object does not exist: a cache may be behind, or empty. */
export const makeGarbageController = (opts: GarbageOptions): Controller => {
  const { client, northbound, instances, networks, log } = opts;

  const cachedUid = (kind: string | undefined, name: ObjectKey): string | undefined =>
    (kind === "network" ? networks.get(name) : instances.get(name))?.metadata.uid;
  const livingUid = async (kind: string | undefined, name: ObjectKey): Promise<string | undefined> =>
    (kind === "network" ? await client.get(networkType, name) : await client.get(instanceType, name))?.metadata.uid;

  const controller = new Controller({
    name: "network-garbage",
    workers: 1,
    logger: log,
    reconcile: async (key, signal) => {
      const owner = ownerOf(key);
      const name = northbound.nameOf(owner);
      if (name === "") return;
      const object = parseKey(name);
      if (cachedUid(key.namespace, object) === key.name || (await livingUid(key.namespace, object)) === key.name) return;
      await northbound.apply(owner, name, () => [], signal);
      log.warn({ owner, name }, "removed rows of an object that is gone from OVN's northbound database");
    },
  });

  const suspect = (owner: string, name: string): void => {
    if (!instances.hasSynced || !networks.hasSynced) return;
    const key = parseKey(owner);
    if (name !== "" && cachedUid(key.namespace, parseKey(name)) !== key.name) controller.enqueue(key);
  };
  const scan = (): void => {
    for (const [owner, name] of northbound.owners()) suspect(owner, name);
  };
  northbound.onSync(scan);
  northbound.onOwner(suspect);
  void Promise.all([instances.synced, networks.synced]).then(scan);
  controller.watch(instances, ({ old, now }) => (old && !now ? [parseKey(`instance/${old.metadata.uid}`)] : []));
  controller.watch(networks, ({ old, now }) => (old && !now ? [parseKey(`network/${old.metadata.uid}`)] : []));
  return controller;
};
