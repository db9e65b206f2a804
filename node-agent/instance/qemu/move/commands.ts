/** The commands of QEMU's that moves use; replies are checked, not believed. */
import { z } from "zod";
import type { QmpSession } from "../qmp/session.ts";
import type { JsonObject } from "../qmp/wire.ts";
import { diskOf } from "./names.ts";

const count = z.number().nonnegative();

const migration = z.object({
  /** Absent: none was ever begun. */
  status: z.string().optional(),
  "error-desc": z.string().optional(),
  downtime: count.optional(),
  "cpu-throttle-percentage": count.optional(),
  "blocked-reasons": z.array(z.string()).optional(),
  ram: z
    .object({
      transferred: count,
      remaining: count,
      total: count,
      /** Pages sent as they are, and those that are zero, of which only that is told. */
      normal: count,
      duplicate: count,
      "dirty-pages-rate": count.optional(),
      "dirty-sync-count": count,
      "page-size": count,
    })
    .optional(),
});

export type Migration = z.infer<typeof migration>;

const jobs = z.array(
  z.object({
    device: z.string(),
    len: count,
    offset: count,
    ready: z.boolean(),
    status: z.string(),
    error: z.string().optional(),
  }),
);

export interface MirrorJob {
  disk: string;
  /** Its name in QEMU. */
  job: string;
  totalBytes: number;
  doneBytes: number;
  /** In step with its copy, and kept so. */
  ready: boolean;
  /** It waits to be told that the disk may be exchanged for its copy. */
  pending: boolean;
  /** It has ended, well unless there is an error. */
  concluded: boolean;
  error?: string;
}

const named = z.array(z.object({ "node-name": z.string().optional() }));
const objects = z.array(z.object({ name: z.string() }));
const exports = z.array(z.object({ id: z.string() }));
const instances = z.array(z.object({ type: z.string(), "node-name": z.string().optional() }));

export const queryMigrate = async (qmp: QmpSession): Promise<Migration> => migration.parse(await qmp.execute("query-migrate"));

/** Mirrors of moves, also those that have ended and were not yet dismissed. */
export async function queryMirrors(qmp: QmpSession): Promise<MirrorJob[]> {
  const all = jobs.parse(await qmp.execute("query-block-jobs"));
  return all.flatMap((one) => {
    const disk = diskOf(one.device);
    if (disk === undefined) return [];
    const [concluded, pending] = [one.status === "concluded", one.status === "pending"];
    const error = one.error === undefined ? {} : { error: one.error };
    return [
      { disk, job: one.device, totalBytes: one.len, doneBytes: one.offset, ready: one.ready, pending, concluded, ...error },
    ];
  });
}

/** Nodes of moves. */
export async function queryMoveNodes(qmp: QmpSession): Promise<string[]> {
  const all = named.parse(await qmp.execute("query-named-block-nodes", { flat: true }));
  return all.flatMap(({ "node-name": name }) => (name !== undefined && diskOf(name) !== undefined ? [name] : []));
}

/** Objects of moves. */
export async function queryMoveObjects(qmp: QmpSession): Promise<string[]> {
  const all = objects.parse(await qmp.execute("qom-list", { path: "/objects" }));
  return all.map(({ name }) => name).filter((name) => diskOf(name) !== undefined);
}

/** Exports of moves. */
export async function queryMoveExports(qmp: QmpSession): Promise<string[]> {
  const all = exports.parse(await qmp.execute("query-block-exports"));
  return all.map(({ id }) => id).filter((id) => diskOf(id) !== undefined);
}

/** Connections of a move that could be broken; asked and answered beside QEMU's main loop. */
export async function queryYank(qmp: QmpSession, deadlineMs: number): Promise<JsonObject[]> {
  const all = instances.parse(await qmp.execute("query-yank", {}, { outOfBand: true, deadlineMs }));
  return all.filter(
    (one) => one.type === "migration" || (one.type === "block-node" && diskOf(one["node-name"] ?? "") !== undefined),
  );
}

export const setCapabilities = (qmp: QmpSession, capabilities: { [name: string]: boolean }): Promise<unknown> =>
  qmp.execute("migrate-set-capabilities", {
    capabilities: Object.entries(capabilities).map(([capability, state]) => ({ capability, state })),
  });

const capabilities = z.array(z.object({ capability: z.string(), state: z.boolean() }));

/** Those that are on; what a move has set stays until it is set anew. */
export async function queryCapabilities(qmp: QmpSession): Promise<string[]> {
  const all = capabilities.parse(await qmp.execute("query-migrate-capabilities"));
  return all.filter(({ state }) => state).map(({ capability }) => capability);
}

export const setParameters = (qmp: QmpSession, parameters: JsonObject): Promise<unknown> =>
  qmp.execute("migrate-set-parameters", parameters);

/** Where memory goes, as both ends name it. */
export const memoryChannel = (host: string, port: number): JsonObject => ({
  channels: [{ "channel-type": "main", addr: { transport: "socket", type: "inet", host, port: String(port) } }],
});
