/**
 * What is on the node of instances that the API does not have: only proof counts. An informer that has synced and, twice, the
 * API server's own "there is none" (or: another one of that name) let processes and NICs go. Disks stay where they are.
 */
import { mkdir, readdir, readFile, rename, rm, stat, writeFile } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { z } from "zod";
import type { Instance } from "../../crds/instance.ts";
import { tapName } from "../../crds/names.ts";
import { instances } from "../../crds/resources.ts";
import type { Clock, Informer, KubeClient, Logger } from "../../kube/index.ts";
import { errorCode } from "../errors.ts";
import type { Nics } from "../nic/index.ts";
import type { NodePaths } from "../node.ts";
import { readNote } from "../pool/notes.ts";
import type { InstanceDriver, InstanceNote } from "./driver.ts";
import { nicNames } from "./execute.ts";

/** Between the two answers of the API server: an instance restored from a backup in between is not lost. */
const SECOND_LOOK_MS = 30_000;
const STOP_MS = 60_000;

const recordShape = z.object({ instanceUid: z.string(), namespace: z.string(), name: z.string(), since: z.string() });

/** Disks that are left of an instance that is gone. */
export interface LostDisks extends z.infer<typeof recordShape> {
  /** Directories that hold them. */
  directories: string[];
}

export interface LostParts {
  client: Pick<KubeClient, "get">;
  instances: Pick<Informer<Instance>, "list" | "hasSynced">;
  driver: Pick<InstanceDriver, "list" | "observe" | "stop" | "forget">;
  nics: Pick<Nics, "removeAll" | "sweep">;
  /** Instances that a move brings to this node, or takes from it: theirs is that move's business. */
  moving: () => readonly { instanceUid: string; nics: readonly string[] }[];
  nodeName: string;
  paths: NodePaths;
  clock: Clock;
  log: Logger;
}

export type Verdict = "known" | "elsewhere" | "gone";

/** What the API server's answer says of an instance that this node has a note of. Pure. */
export function lostVerdict(note: Pick<InstanceNote, "instanceUid">, answer: Instance | undefined, nodeName: string): Verdict {
  if (answer === undefined || answer.metadata.uid !== note.instanceUid) return "gone";
  return answer.status?.nodeName === undefined || answer.status.nodeName === nodeName ? "known" : "elsewhere";
}

export class LostInstances {
  readonly #parts: LostParts;
  /** When the API server first said that there is none. */
  readonly #firstSeen = new Map<string, number>();

  constructor(parts: LostParts) {
    this.#parts = parts;
  }

  /** One look over all that is on the node. Does nothing before the informer has synced; throws when the API cannot be asked. */
  async check(signal: AbortSignal): Promise<void> {
    const { instances: informer, driver } = this.#parts;
    if (!informer.hasSynced) return;
    const uids = await driver.list();
    const moving = this.#parts.moving().map(({ instanceUid }) => instanceUid);
    const known = new Set([...informer.list().map(({ metadata }) => metadata.uid), ...moving]);
    for (const uid of this.#firstSeen.keys()) if (known.has(uid)) this.#firstSeen.delete(uid);
    for (const uid of uids) {
      signal.throwIfAborted();
      if (!known.has(uid)) await this.#look(uid, signal);
    }
    await this.#sweep(await driver.list(), signal);
  }

  /** Disks of instances that are gone, for people to decide about. */
  async disks(): Promise<LostDisks[]> {
    const found: LostDisks[] = [];
    for (const name of await readdirIfThere(this.#directory)) {
      const file = join(this.#directory, name);
      if (!name.endsWith(".json")) continue;
      const record = recordShape.safeParse(JSON.parse(await readFile(file, "utf8")));
      if (!record.success) continue;
      const directories = await this.#volumes(record.data.instanceUid);
      if (directories.length === 0) await rm(file, { force: true });
      else found.push({ ...record.data, directories });
    }
    return found;
  }

  get #directory(): string {
    return join(this.#parts.paths.root, "lost");
  }

  async #look(uid: string, signal: AbortSignal): Promise<void> {
    const { client, driver, nodeName, clock, log } = this.#parts;
    const { note } = await driver.observe(uid);
    if (note === undefined) return;
    const answer = await client.get(instances, { namespace: note.namespace, name: note.name });
    const verdict = lostVerdict(note, answer, nodeName);
    const about = { instance: `${note.namespace}/${note.name}`, uid };
    if (verdict !== "gone") {
      this.#firstSeen.delete(uid);
      if (verdict === "elsewhere") await this.#leftBehind(uid, about, signal);
      return;
    }
    const first = this.#firstSeen.get(uid);
    if (first === undefined) {
      this.#firstSeen.set(uid, clock.monotonic());
      log.warn(about, "an instance on this node is not in the API; it is asked for once more before anything is done");
      return;
    }
    if (clock.monotonic() - first < SECOND_LOOK_MS) return;
    await this.#release(note, signal);
    this.#firstSeen.delete(uid);
  }

  /**
   * Of an instance that was started on another node. Where that could be, its disks are shared, and what is left here is a
   * directory without a process. Disks of this node's own, or a process, say that something is wrong: nothing is touched.
   */
  async #leftBehind(uid: string, about: object, signal: AbortSignal): Promise<void> {
    const { driver, nics, paths, log } = this.#parts;
    const { state } = await driver.observe(uid);
    const own: string[] = [];
    for (const directory of await this.#volumes(uid)) {
      const note = await readNote(paths, basename(dirname(dirname(directory))));
      if (note?.shared !== true) own.push(directory);
    }
    if ((state !== "exited" && state !== "absent") || own.length > 0) {
      log.warn({ ...about, state, disks: own }, "this node has a note of an instance that is on another node; it is left alone");
      return;
    }
    // It may be on its way back at this very moment.
    if (this.#parts.instances.list().some(({ metadata }) => metadata.uid === uid)) return;
    await nics.removeAll(uid, [], signal);
    await driver.forget(uid);
    log.info(about, "an instance was started on another node that shares its disks; what was left of it here is gone");
  }

  async #release(note: InstanceNote, signal: AbortSignal): Promise<void> {
    const { driver, nics, clock, log } = this.#parts;
    const { instanceUid, namespace, name } = note;
    log.warn(
      { instance: `${namespace}/${name}`, uid: instanceUid },
      "an instance is gone from the API without its release: its guest is shut down, its disks are kept",
    );
    await driver.stop(instanceUid, { mode: "clean", deadlineMs: STOP_MS }, signal);
    await nics.removeAll(instanceUid, [], signal);
    if ((await this.#volumes(instanceUid)).length > 0) {
      const record = { instanceUid, namespace, name, since: new Date(clock.now()).toISOString() };
      const file = join(this.#directory, `${instanceUid}.json`);
      await mkdir(this.#directory, { recursive: true, mode: 0o700 });
      await writeFile(`${file}.new`, JSON.stringify(record), { mode: 0o600 });
      await rename(`${file}.new`, file);
    }
    await driver.forget(instanceUid);
  }

  /** Taps and ports of instances that are neither in the API nor noted on the node. */
  async #sweep(noted: readonly string[], signal: AbortSignal): Promise<void> {
    const known = () => {
      const all = this.#parts.instances.list();
      const moving = this.#parts.moving();
      const owners = [...all.map((instance) => ({ instanceUid: instance.metadata.uid, nics: nicNames(instance) })), ...moving];
      const taps = owners.flatMap(({ instanceUid, nics }) => nics.map((nic) => tapName(instanceUid, nic)));
      return { taps: new Set(taps), instances: new Set([...owners.map(({ instanceUid }) => instanceUid), ...noted]) };
    };
    await this.#parts.nics.sweep(known, signal);
  }

  async #volumes(instanceUid: string): Promise<string[]> {
    const { paths } = this.#parts;
    const found: string[] = [];
    for (const pool of await readdirIfThere(paths.pools)) {
      const directory = paths.volumes(pool, instanceUid);
      if (await isDirectory(directory)) found.push(directory);
    }
    return found;
  }
}

async function readdirIfThere(path: string): Promise<string[]> {
  try {
    return await readdir(path);
  } catch (error) {
    if (errorCode(error) === "ENOENT") return [];
    throw error;
  }
}

const isDirectory = (path: string): Promise<boolean> =>
  stat(path).then(
    (info) => info.isDirectory(),
    () => false,
  );
