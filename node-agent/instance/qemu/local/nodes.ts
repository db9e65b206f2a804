/** The block nodes of one disk that goes to another pool under a running guest. */
import { z } from "zod";
import type { MachineDisk } from "../../driver.ts";
import { pathInside } from "../command-line.ts";
import type { QmpSession } from "../qmp/session.ts";
import type { JsonObject } from "../qmp/wire.ts";

/** Each disk has two nodes, one on the other. When it changes its pool the other pair of names is taken: no disk has a dot in its name. */
const PAIRS = ["", ".b"] as const;

interface Pair {
  disk: string;
  file: string;
}

const pairsOf = (disk: string): Pair[] => PAIRS.map((end) => ({ disk: `disk-${disk}${end}`, file: `file-${disk}${end}` }));

const blocks = z.array(
  z.object({
    qdev: z.string().optional(),
    inserted: z.object({ "node-name": z.string().optional(), file: z.string() }).optional(),
  }),
);

export interface Inserted {
  /** Name of the node that the guest's device has now. */
  node: string;
  /** Its file, as QEMU sees it. */
  file: string;
}

/** The disks that the guest has, by their ids: a disk that has changed its pool has nodes of other names. */
export async function queryDisks(qmp: QmpSession): Promise<Map<string, Inserted>> {
  const found = new Map<string, Inserted>();
  for (const { qdev, inserted } of blocks.parse(await qmp.execute("query-block"))) {
    const disk = /(?:^|\/)vdisk-([^/]+)/.exec(qdev ?? "")?.[1];
    const node = inserted?.["node-name"];
    if (disk !== undefined && node !== undefined && inserted !== undefined) found.set(disk, { node, file: inserted.file });
  }
  return found;
}

/** Throws when the guest has no such disk. */
export async function insertedDisk(qmp: QmpSession, disk: string): Promise<Inserted> {
  const found = (await queryDisks(qmp)).get(disk);
  if (found === undefined) throw new Error(`the guest has no disk ${disk}`);
  return found;
}

/** The names that the disk does not have now. Pure. */
export const otherPair = (disk: string, now: Inserted): Pair => {
  const other = pairsOf(disk).find((pair) => pair.disk !== now.node);
  if (other === undefined) throw new Error(`disk ${disk} has the unknown node ${now.node}`);
  return other;
};

/** Where QEMU sees a volume. Pure. */
export const fileInside = (place: { pool: string; path: string }, disk: string): string =>
  pathInside({ id: disk, ...place } satisfies MachineDisk);

/** The nodes of a volume, as the command line makes them; the upper one last. Pure. */
export function volumeNodes(pair: Pair, filename: string, direct: boolean): JsonObject[] {
  const common = { cache: { direct }, discard: "unmap" };
  return [
    { driver: "file", "node-name": pair.file, filename, aio: "threads", ...common },
    { driver: "raw", "node-name": pair.disk, file: pair.file, ...common },
  ];
}

const named = z.array(z.object({ "node-name": z.string().optional() }));

/** Removes the pair of nodes that the disk does not have; may be repeated. */
export async function removeOther(qmp: QmpSession, disk: string, now: Inserted, options: { deadlineMs: number }): Promise<void> {
  const { disk: upper, file } = otherPair(disk, now);
  const all = named.parse(await qmp.execute("query-named-block-nodes", { flat: true })).map((one) => one["node-name"]);
  for (const node of [upper, file]) if (all.includes(node)) await qmp.execute("blockdev-del", { "node-name": node }, options);
}
