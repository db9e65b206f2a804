/** The place of the disks that come, and its undoing; and what is left of those that have gone. */
import type { Instance } from "../../../crds/instance.ts";
import type { Migration } from "../../../crds/migration.ts";
import type { HostFacts } from "../../host/index.ts";
import type { Offer } from "../../instance/move.ts";
import { writeRestartNote } from "../../instance/restart-note.ts";
import type { NodePaths } from "../../node.ts";
import type { MoveNote } from "../notes.ts";
import type { SideParts } from "../parts.ts";
import { destroySource } from "../source/destroy.ts";
import { instanceOf, newSecret, type Progress } from "../target/prepare.ts";
import { ensureDisks } from "../target/volumes.ts";
import type { ColdMoves } from "./cold.ts";

export interface ColdSide extends SideParts {
  cold: ColdMoves;
  hostFacts: () => Promise<HostFacts>;
  paths: NodePaths;
  /** Where the source's program reaches this node's. */
  address: string;
  dataPorts: readonly [number, number];
}

/** Resolves when empty disks are given out to the source. Throws UserError with what is missing. */
export async function prepareCold(
  parts: ColdSide,
  note: MoveNote,
  migration: Migration,
  progress: Pick<Progress, "note">,
  signal: AbortSignal,
): Promise<Offer> {
  const { driver, cold, pools, paths, checkpoint, address, dataPorts } = parts;
  const { disks = [], policy } = migration.status ?? {};
  const instance = await instanceOf(parts, note);
  const copied = disks.filter(({ copy }) => copy);
  const secret = note.secret ?? (policy?.tls === false ? undefined : newSecret(note));
  await progress.note((before) => ({
    ...before,
    disks: copied.map(({ targetPool, name }) => ({ pool: targetPool, disk: name })),
    ...(secret === undefined ? {} : { secret }),
  }));
  const { uid: instanceUid, namespace, name } = note.instance;
  const identity = await driver.prepare({ instanceUid, namespace, name });
  await writeRestartNote(paths, instanceUid, restartNote(instance));
  const found = await ensureDisks(pools, instance, disks, identity, signal);
  await checkpoint("target", "receive");
  await progress.note((before) => ({ ...before, receiving: true }));
  const copy = copied.map((disk) => ({ disk: disk.name, sizeBytes: disk.sizeBytes }));
  const machine = { instanceUid, identity, disks: found };
  return cold.receive({ machine, copy, address, ports: dataPorts, secret }, signal);
}

function restartNote({ status }: Instance): Parameters<typeof writeRestartNote>[2] {
  const { restarts = 0, restartedAt } = status?.guest ?? {};
  return { known: true, restarts, streak: 0, ...(restartedAt === undefined ? {} : { restartedAt }) };
}

/** All that `prepareCold` made: what it gave out, the disks that it made, the directory. Shared disks stay. */
export async function destroyColdTarget({ cold, driver, pools }: ColdSide, note: MoveNote): Promise<void> {
  const { uid } = note.instance;
  await cold.abandon(uid);
  for (const disk of note.disks ?? []) await pools.removeVolume({ ...disk, instanceUid: uid });
  await driver.forget(uid);
}

export async function destroyColdSource(
  parts: ColdSide,
  note: MoveNote,
  migration: Migration,
  signal: AbortSignal,
): Promise<void> {
  await destroySource(parts, note, migration, signal);
  await parts.cold.forget(note.instance.uid);
}
