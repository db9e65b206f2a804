/** What the agent keeps of each instance on the node: one file each, whole or not there, readable by root only. */
import { mkdir, readdir, readFile, rm } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import { errorCode, UserError } from "../../errors.ts";
import type { NodePaths } from "../../node.ts";
import { syncDirectory, writeAtomic } from "../../pool/files.ts";
import type { GuestIdentity } from "../../types.ts";
import type { InstanceNote } from "../driver.ts";

const accelerator = z.enum(["KVM", "TCG"]);
const exitReason = z.enum([
  "GuestShutdown",
  "GuestPanicked",
  "MemoryLimit",
  "Stopped",
  "Killed",
  "Crashed",
  "NodeRestarted",
  "ClaimGone",
  "Unknown",
]);

const offer = z.object({
  address: z.string(),
  ramPort: z.int(),
  diskPort: z.int().optional(),
  streams: z.int(),
  postCopy: z.boolean(),
});

const noteSchema = z.object({
  instanceUid: z.string(),
  namespace: z.string(),
  name: z.string(),
  identity: z.object({ uid: z.int(), gid: z.int() }),
  run: z
    .object({
      claimUid: z.string(),
      machineType: z.string(),
      cpuModel: z.string(),
      accelerator,
      runtimeVersion: z.string(),
      qemuVersion: z.string().exactOptional(),
      pid: z.int().exactOptional(),
      pidStart: z.string().exactOptional(),
      bootId: z.string(),
      startedAt: z.string(),
      oomKillsBefore: z.int(),
      stopAskedAt: z.string().exactOptional(),
      exit: z.object({ reason: exitReason, message: z.string(), at: z.string() }).exactOptional(),
      next: z
        .object({
          runtimeVersion: z.string(),
          qemuVersion: z.string().exactOptional(),
          pid: z.int().exactOptional(),
          pidStart: z.string().exactOptional(),
          startedAt: z.string(),
          served: z.literal(true).exactOptional(),
        })
        .exactOptional(),
      previous: z.object({ pid: z.int(), pidStart: z.string(), runtimeVersion: z.string() }).exactOptional(),
      incoming: z.object({ offer: offer.exactOptional(), resumed: z.literal(true).exactOptional() }).exactOptional(),
    })
    .exactOptional(),
});

const NOTE = "note.json";

/** Users of guests on a node: a range that distributions leave alone, and one for each instance in it. */
const FIRST_UID = 100_000;
const LAST_UID = 165_535;

/** Uids come from the API server and become directory names. */
const UID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;

export function checkUid(uid: string): string {
  if (!UID.test(uid)) throw new TypeError(`not a uid: ${uid.slice(0, 64)}`);
  return uid;
}

/** The notes of one node. Only one agent writes them; changes of one note come one after the other. */
export class Notes {
  readonly #paths: NodePaths;
  #tail: Promise<unknown> = Promise.resolve();

  constructor(paths: NodePaths) {
    this.#paths = paths;
  }

  /** The note; undefined when there is none. A note that cannot be read is an error, not an instance that never was. */
  async read(instanceUid: string): Promise<InstanceNote | undefined> {
    let text: string;
    try {
      text = await readFile(this.#file(instanceUid), "utf8");
    } catch (error) {
      if (errorCode(error) === "ENOENT") return undefined;
      throw error;
    }
    return noteSchema.parse(JSON.parse(text));
  }

  /** Uids of all instances with a note. */
  async list(): Promise<string[]> {
    let names: string[];
    try {
      names = await readdir(this.#paths.instances);
    } catch (error) {
      if (errorCode(error) === "ENOENT") return [];
      throw error;
    }
    const noted = await Promise.all(names.filter((name) => UID.test(name)).map((uid) => this.read(uid)));
    return noted.flatMap((note) => (note ? [note.instanceUid] : []));
  }

  /** Makes the instance's directories and its note with the smallest free user; keeps an existing note. */
  prepare(instance: { instanceUid: string; namespace: string; name: string }): Promise<InstanceNote> {
    return this.#serially(async () => {
      const existing = await this.read(instance.instanceUid);
      const note = existing ?? { ...instance, identity: await this.#freeIdentity() };
      await mkdir(this.#paths.instances, { recursive: true, mode: 0o700 });
      await mkdir(this.#paths.instance(instance.instanceUid), { recursive: true, mode: 0o700 });
      // root's own: the guest's process sees it as /vm and can write nothing in it
      await mkdir(this.#paths.instanceVm(instance.instanceUid), { recursive: true, mode: 0o755 });
      if (!existing) await writeAtomic(this.#file(instance.instanceUid), text(note));
      return note;
    });
  }

  /** Reads, changes and writes a note in one; nothing is written when `change` returns the same object, or undefined. */
  update(instanceUid: string, change: (note: InstanceNote) => InstanceNote | undefined): Promise<InstanceNote | undefined> {
    return this.#serially(async () => {
      const before = await this.read(instanceUid);
      const after = before && change(before);
      if (!before || !after || after === before) return before;
      await writeAtomic(this.#file(instanceUid), text(after));
      return after;
    });
  }

  /** Removes the instance's directory, the note last, so that a half-removed one is still listed. */
  remove(instanceUid: string): Promise<void> {
    return this.#serially(async () => {
      const directory = this.#paths.instance(checkUid(instanceUid));
      const names = await readdir(directory).catch(ignoreMissing);
      for (const name of names ?? []) if (name !== NOTE) await rm(join(directory, name), { recursive: true, force: true });
      await rm(directory, { recursive: true, force: true });
      await syncDirectory(this.#paths.instances).catch(ignoreMissing);
    });
  }

  #file(instanceUid: string): string {
    return join(this.#paths.instance(checkUid(instanceUid)), NOTE);
  }

  async #freeIdentity(): Promise<GuestIdentity> {
    const notes = await Promise.all((await this.list()).map((uid) => this.read(uid)));
    const taken = new Set(notes.map((note) => note?.identity.uid));
    for (let uid = FIRST_UID; uid <= LAST_UID; uid++) if (!taken.has(uid)) return { uid, gid: uid };
    throw new UserError("NoUserLeft", `all users ${FIRST_UID} to ${LAST_UID} of this node belong to instances; remove some`);
  }

  #serially<T>(task: () => Promise<T>): Promise<T> {
    const result = this.#tail.then(task, task);
    this.#tail = result.catch(() => undefined);
    return result;
  }
}

const text = (note: InstanceNote): string => `${JSON.stringify(note, undefined, 2)}\n`;

function ignoreMissing(error: unknown): undefined {
  if (errorCode(error) !== "ENOENT") throw error;
  return undefined;
}
