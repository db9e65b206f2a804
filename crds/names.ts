/** Names that more than one process must compute alike. */
import { createHash } from "node:crypto";

export const GROUP = "drover.dev";
export const VERSION = "v1alpha1";
export const API_VERSION = `${GROUP}/${VERSION}`;

/** Field manager of everything the operator writes. */
export const OPERATOR_MANAGER = "drover-operator";
/** Field manager of everything an agent writes. */
export const AGENT_MANAGER = "drover-agent";

/** Keeps an Instance until its processes, volumes, ports and claim are gone. */
export const INSTANCE_FINALIZER = "drover.dev/instance";
/** Keeps a Network until its rows in OVN's northbound database are gone. */
export const NETWORK_FINALIZER = "drover.dev/network";
/** Keeps a StoragePool until no instance uses it and every node has taken it down. */
export const POOL_FINALIZER = "drover.dev/pool";

/** Keeps a Migration until nothing of it is left on either node. */
export const MIGRATION_FINALIZER = "drover.dev/migration";
/** Field managers of what the two agents of a move say: one each, for each applies its own part of the status. */
export const SOURCE_MANAGER = "drover-agent-source";
export const TARGET_MANAGER = "drover-agent-target";

/** Label of a claim pod that a Migration made, until the guest lives in it; its value is the Migration's name. */
export const MIGRATION_LABEL = "drover.dev/migration";
/** Label of a Migration that a roll-out made; its value is the Rollout's name. */
export const ROLLOUT_LABEL = "drover.dev/rollout";
/** Label of claim pods; its value is the instance's name. */
export const CLAIM_LABEL = "drover.dev/claim";
/** The one PodDisruptionBudget of a namespace with claims: it refuses every eviction of a claim. */
export const CLAIMS_BUDGET = "drover-claims";

const hex = (text: string, length: number): string => createHash("sha256").update(text).digest("hex").slice(0, length);

/** Claim pod's name: the same for the same instance and serial, so that making it can be repeated. */
export const claimName = (instance: string, uid: string, serial: number): string =>
  `drover-${instance}-${hex(`${uid}/${serial}`, 5)}`;

/** Name of the claim pod that an attempt of a Migration moves to: the same when it is made again. */
export const targetClaimName = (instance: string, migrationUid: string, attempt: number): string =>
  `drover-${instance}-${hex(`${migrationUid}/target/${attempt}`, 5)}`;

/** Rollouts are found by a label on their Migrations, whose value is their name. */
const ROLLOUT_NAME_MAX = 63;

/**
 * Name of the Rollout of a runtime: its version in small letters. Where that would not be a name, or is too long, a hash of the
 * version follows what is left of it, so that no two versions share one.
 */
export function rolloutName(version: string): string {
  const small = version.toLowerCase();
  if (version.length <= ROLLOUT_NAME_MAX && /^[a-z0-9]+([-.][a-z0-9]+)*$/.test(version)) return version;
  const words = small.split(/[^a-z0-9]+/).filter((word) => word !== "");
  const left = words
    .join("-")
    .slice(0, ROLLOUT_NAME_MAX - 9)
    .replace(/-+$/, "");
  return [left, hex(version, 8)].filter((part) => part !== "").join("-");
}

/** Name of a NIC's tap on the node, and of its port on br-int: 15 characters, the kernel's limit. */
export const tapName = (instanceUid: string, nic: string): string => `d${hex(`${instanceUid}/${nic}`, 14)}`;

/** Logical switch port's name, and the `iface-id` that binds a tap to it. */
export const portName = (namespace: string, instance: string, nic: string, instanceUid: string): string =>
  `${namespace}.${instance}.${nic}.${instanceUid.slice(0, 8)}`;

/** Extended resource by which a pool's GiB are counted on a Node. */
export const poolResource = (pool: string): string => `${GROUP}/pool.${pool}`;

/** An agent's heartbeat Lease is named so, in the operator's own namespace. */
export const AGENT_LEASE_PREFIX = "drover-agent-";
/** Annotation of that Lease: the boot of the node in which the agent last renewed it, as `status.nodeInfo.bootID` names it. */
export const BOOT_ID = `${GROUP}/boot-id`;
export const agentLeaseName = (node: string): string => `${AGENT_LEASE_PREFIX}${node}`;
