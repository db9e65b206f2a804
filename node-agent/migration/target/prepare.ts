/** The place of a guest that comes, and its undoing. Each step may be repeated; what is made is noted first. */
import { randomBytes } from "node:crypto";
import type { Instance } from "../../../crds/instance.ts";
import type { Migration } from "../../../crds/migration.ts";
import { instances } from "../../../crds/resources.ts";
import { sleep, type Clock, type ObjectKey } from "../../../kube/index.ts";
import { UserError } from "../../errors.ts";
import type { HostFacts } from "../../host/index.ts";
import type { Offer } from "../../instance/move.ts";
import { writeRestartNote } from "../../instance/restart-note.ts";
import type { NodePaths } from "../../node.ts";
import type { MoveNote } from "../notes.ts";
import type { SideParts } from "../parts.ts";
import { sameMachine } from "./machine.ts";
import { ensureDisks } from "./volumes.ts";

export interface PrepareParts extends SideParts {
  hostFacts: () => Promise<HostFacts>;
  paths: NodePaths;
  /** Where the source's QEMU reaches this node's. */
  address: string;
  dataPorts: readonly [number, number];
}

export interface Progress {
  note: (change: (note: MoveNote) => MoveNote) => Promise<void>;
  say: (message: string) => void;
}

/**
 * Resolves when a QEMU waits for the guest; whether its ports are installed by then is place.ts's to say. Throws UserError with what is
 * missing.
 */
export async function prepareTarget(
  parts: PrepareParts,
  note: MoveNote,
  migration: Migration,
  progress: Progress,
  signal: AbortSignal,
): Promise<Offer> {
  const { driver, moves, pools, paths, checkpoint, address, dataPorts } = parts;
  const { targetClaim, disks = [], policy } = migration.status ?? {};
  if (targetClaim?.uid === undefined) throw new Error("the target's claim is not known");
  const [instance, facts] = await Promise.all([instanceOf(parts, note), parts.hostFacts()]);
  const copied = disks.filter(({ copy }) => copy);
  const secret = note.secret ?? (policy?.tls === false ? undefined : newSecret(note));
  await progress.note((before) => ({
    ...before,
    nics: (instance.status?.nics ?? []).map(({ name }) => name),
    disks: copied.map(({ targetPool, name }) => ({ pool: targetPool, disk: name })),
    ...(secret === undefined ? {} : { secret }),
  }));
  const identity = await driver.prepare({
    instanceUid: note.instance.uid,
    namespace: note.instance.namespace,
    name: note.instance.name,
  });
  const { restarts = 0, restartedAt } = instance.status?.guest ?? {};
  const patience = { clock: parts.clock, say: progress.say, signal };
  const [machineDisks] = await allOf([
    patiently(patience, () => ensureDisks(pools, instance, disks, identity, signal)),
    patiently(patience, () => ensureTaps(parts, instance, identity.uid, signal)),
    writeRestartNote(paths, note.instance.uid, {
      known: true,
      restarts,
      streak: 0,
      ...(restartedAt === undefined ? {} : { restartedAt }),
    }),
  ]);
  const machine = sameMachine(instance, facts, { claimUid: targetClaim.uid, identity, disks: machineDisks });
  await checkpoint("target", "receive");
  signal.throwIfAborted();
  const copy = copied.map(({ name, sizeBytes }) => ({ disk: name, sizeBytes }));
  await progress.note((before) => ({ ...before, receiving: true }));
  try {
    return await moves.receive({ machine, copy, address, ports: dataPorts, secret, streams: policy?.connections ?? 0 }, signal);
  } catch (error) {
    // Nothing runs then: this attempt may still have its one QEMU.
    await progress.note((before) => ({ ...before, receiving: false }));
    throw error;
  }
}

/** All of it, side by side; fails only when nothing of it is under way any more, so that what was made can be undone. */
async function allOf<T extends readonly unknown[]>(work: { [K in keyof T]: Promise<T[K]> }): Promise<T> {
  await Promise.allSettled(work);
  return Promise.all(work) as Promise<T>;
}

/** What an agent that has just started does not know yet, though it is there. */
const SOON_KNOWN = new Set(["PoolUnknown", "PoolNotReady", "SwitchDown"]);
const PATIENCE_MS = 30_000;
const LOOK_AGAIN_MS = 500;

/** Tries again for a while what may be there in a moment. */
export async function patiently<T>(
  { clock, say, signal }: { clock: Clock; say: (message: string) => void; signal: AbortSignal },
  work: () => Promise<T>,
): Promise<T> {
  for (const since = clock.monotonic(); ; ) {
    try {
      return await work();
    } catch (error) {
      const soon = error instanceof UserError && SOON_KNOWN.has(error.reason);
      if (!soon || clock.monotonic() - since > PATIENCE_MS) throw error;
      say(`waiting: ${error.message}`);
      await sleep(clock, LOOK_AGAIN_MS, signal);
      signal.throwIfAborted();
    }
  }
}

/** All that `prepareTarget` made: its QEMU, taps, the disks that it made, the directory. Shared disks stay. */
export async function destroyTarget(parts: SideParts, note: MoveNote, signal: AbortSignal): Promise<void> {
  const { driver, moves, pools, nics } = parts;
  const { uid } = note.instance;
  await moves.abandon(uid);
  await nics.removeAll(uid, note.nics, signal);
  for (const disk of note.disks ?? []) await pools.removeVolume({ ...disk, instanceUid: uid });
  await driver.forget(uid);
}

/** The guest's Instance, from the API server itself: this node's cache does not have it yet. */
export async function instanceOf({ client }: Pick<SideParts, "client">, { instance }: MoveNote): Promise<Instance> {
  const { uid, ...key } = instance;
  const found = await client.get(instances, key satisfies ObjectKey);
  if (found === undefined || found.metadata.uid !== uid) throw new UserError("InstanceGone", `the instance ${key.name} is gone`);
  return found;
}

async function ensureTaps(
  { nics }: Pick<SideParts, "nics">,
  instance: Instance,
  user: number,
  signal: AbortSignal,
): Promise<void> {
  const { uid } = instance.metadata;
  for (const nic of instance.status?.nics ?? []) await nics.ensure({ instanceUid: uid, nic }, user, signal);
}

export const newSecret = ({ migration, attempt }: MoveNote): NonNullable<MoveNote["secret"]> => ({
  identity: `move-${migration.uid.slice(0, 8)}-${attempt}`,
  key: randomBytes(32).toString("hex"),
});
