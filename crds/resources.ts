/** Drover's own API resources, for the client and the informers. */
import type { ResourceType } from "../kube/index.ts";
import type { Host } from "./host.ts";
import type { Instance } from "./instance.ts";
import type { Migration } from "./migration.ts";
import { GROUP, VERSION } from "./names.ts";
import type { Network } from "./network.ts";
import type { StoragePool } from "./pool.ts";
import type { Rollout } from "./rollout.ts";

const drover = { group: GROUP, version: VERSION };

export const instances: ResourceType<Instance> = { ...drover, plural: "instances", kind: "Instance", namespaced: true };
export const networks: ResourceType<Network> = { ...drover, plural: "networks", kind: "Network", namespaced: true };
export const storagePools: ResourceType<StoragePool> = {
  ...drover,
  plural: "storagepools",
  kind: "StoragePool",
  namespaced: false,
};
export const migrations: ResourceType<Migration> = { ...drover, plural: "migrations", kind: "Migration", namespaced: true };
export const hosts: ResourceType<Host> = { ...drover, plural: "hosts", kind: "Host", namespaced: false };
export const rollouts: ResourceType<Rollout> = { ...drover, plural: "rollouts", kind: "Rollout", namespaced: false };
