/** How many GiB of each pool kube-scheduler may give away on this node. Pure. */
import { disksOf } from "../../crds/disks.ts";
import type { HostPool } from "../../crds/host.ts";
import type { Instance } from "../../crds/instance.ts";
import { poolResource } from "../../crds/names.ts";
import type { JsonPatchOp } from "../../kube/index.ts";
import { asksForDisk, isDiskClaimed } from "../../crds/disk-room.ts";
import { GIB, gibRoundedUp } from "../../crds/quantity.ts";

const PREFIX = poolResource("");

/** GiB of disks per pool that lie on this node while no claim accounts for them: of instances that are stopped, or were started again. */
export function unclaimedGib(instances: readonly Instance[], node: string): Map<string, number> {
  const gib = new Map<string, number>();
  for (const instance of instances) {
    const { status } = instance;
    if (status?.nodeName !== node || isDiskClaimed(status) || status.guest?.state === "Released") continue;
    for (const { pool, sizeBytes } of disksOf(instance)) gib.set(pool, (gib.get(pool) ?? 0) + gibRoundedUp(sizeBytes));
  }
  return gib;
}

/**
 * GiB of disks in a pool that nodes share for which no claim on this node accounts: each node takes off what all the others have,
 * so that what is left is the same room for everyone. `volumes`: bytes by instance. A later claim, or one that came by a
 * move, never asks for the room of a shared disk, for it goes where that disk is already.
 */
export function elsewhereGib(volumes: ReadonlyMap<string, number>, instances: readonly Instance[], node: string): number {
  const claimed = new Set(
    instances
      .filter(({ status }) => status?.claim?.uid !== undefined && status.claim.node === node && asksForDisk(status.claim.serial))
      .map(({ metadata }) => metadata.uid),
  );
  return gibRoundedUp([...volumes].reduce((sum, [uid, bytes]) => (claimed.has(uid) ? sum : sum + bytes), 0));
}

export interface PoolUse {
  pool: HostPool;
  imagesBytes: number;
  unclaimedGib: number;
}

/**
 * Capacity per extended resource: the pool's whole GiB, less what images take and disks without a claim may take. Zero for a
 * pool that is not mounted. A pool that is full counts as before: it is the making of a new disk that is refused there, while
 * an instance whose disk exists must be able to come back.
 */
export function poolCapacity(uses: readonly PoolUse[]): Map<string, string> {
  return new Map(
    uses.map(({ pool, imagesBytes, unclaimedGib: unclaimed }) => {
      const whole = Math.floor((pool.sizeBytes ?? 0) / GIB);
      return [poolResource(pool.name), String(Math.max(0, whole - gibRoundedUp(imagesBytes) - unclaimed))];
    }),
  );
}

const pointer = (key: string): string => `/status/capacity/${key.replaceAll("~", "~0").replaceAll("/", "~1")}`;

/**
 * What makes a Node's capacity so; empty when it is. Resources of pools that are gone are taken off once all pools were
 * looked at (`settled`); others' are not touched.
 */
export function capacityPatch(
  have: Readonly<Record<string, string>>,
  want: ReadonlyMap<string, string>,
  settled: boolean,
): JsonPatchOp[] {
  const stale = settled ? Object.keys(have).filter((key) => key.startsWith(PREFIX) && !want.has(key)) : [];
  const different = [...want].filter(([key, value]) => have[key] !== value);
  return [
    ...different.map(([key, value]): JsonPatchOp => ({ op: "add", path: pointer(key), value })),
    ...stale.map((key): JsonPatchOp => ({ op: "remove", path: pointer(key) })),
  ];
}
