/** By what the caches can be asked: so that an event costs as much as it concerns, not as much as there is. */
import { poolsOf } from "../crds/disks.ts";
import type { Host } from "../crds/host.ts";
import type { Instance } from "../crds/instance.ts";
import type { Pod } from "../kube/index.ts";

export type IndexesOf<T> = Record<string, (object: T) => string[]>;

export const instanceIndexes = {
  /** Pools that its disks lie in, or will. */
  pool: poolsOf,
  node: (instance: Instance): string[] => (instance.status?.nodeName === undefined ? [] : [instance.status.nodeName]),
};

export const hostIndexes = {
  pool: (host: Host): string[] => (host.status?.pools ?? []).map(({ name }) => name),
  /** "False" gives the hosts whose agent says that they cannot take instances. */
  ready: (host: Host): string[] => {
    const ready = host.status?.conditions?.find(({ type }) => type === "Ready");
    return ready === undefined ? [] : [ready.status];
  },
};

export const claimIndexes = {
  /** uid of the owning Instance. */
  owner: (pod: Pod): string[] =>
    (pod.metadata.ownerReferences ?? []).filter(({ controller }) => controller === true).map(({ uid }) => uid),
  node: (pod: Pod): string[] => (pod.spec.nodeName === undefined ? [] : [pod.spec.nodeName]),
  namespace: (pod: Pod): string[] => (pod.metadata.namespace === undefined ? [] : [pod.metadata.namespace]),
};
