/**
 * What an agent must not forget about a move: one file for each instance, synced to the disk before what it promises is done.
 * It lies beside the instances' directories, for it outlives them: it is made first and goes last.
 */
import { mkdir, readdir, readFile, rm } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import type { NodePaths } from "../node.ts";
import { errorCode } from "../errors.ts";
import { removeStaged, stageAtomic, syncDirectory, writeAtomic } from "../pool/files.ts";

const why = z.object({ reason: z.string(), message: z.string(), retryable: z.boolean() });

const shape = z.object({
  migration: z.object({ namespace: z.string(), name: z.string(), uid: z.string() }),
  instance: z.object({ namespace: z.string(), name: z.string(), uid: z.string() }),
  attempt: z.int(),
  /** local: both, for the disk goes to another pool of this node. update: both, for the guest gets another QEMU on this node. */
  role: z.enum(["source", "target", "local", "update"]),
  /** The instance does not run: only its disks move. */
  cold: z.boolean().exactOptional(),
  /** The promise: source GivingUp or Gone, target Refusing or Ran, local GivingUp or Pivoting, update GivingUp or Switched. */
  mark: z.enum(["none", "GivingUp", "Gone", "Refusing", "Ran", "Pivoting", "Switched"]),
  /** When this side began, ms since 1970. */
  since: z.number(),
  /** NICs that this side has made, or will make. */
  nics: z.array(z.string()),
  /** Source: memory has been copied, or nearly; it is not tried a second time in one attempt. */
  memoryStarted: z.boolean().exactOptional(),
  /** Source: when the guest's CPUs were stopped for the switchover, ms since 1970. */
  stoppedAt: z.number().exactOptional(),
  /** Target: when the guest was about to be let run, ms since 1970. */
  ranAt: z.number().exactOptional(),
  /** The guest goes on at the target before all its memory is there. */
  postCopy: z.boolean().exactOptional(),
  /** Target, post-copy: by now it has all of its memory. */
  whole: z.boolean().exactOptional(),
  /** Target: a QEMU was started for it, or nearly; there is one for each attempt. */
  receiving: z.boolean().exactOptional(),
  /** Why this side gave up. */
  why: why.exactOptional(),
  /** Target: the disks that it made for this attempt. */
  disks: z.array(z.object({ pool: z.string(), disk: z.string() })).exactOptional(),
  /** Local: the disk, where it lies and where it goes, and the claim that the guest belongs to afterwards. */
  goes: z
    .object({ disk: z.string(), sizeBytes: z.int(), from: z.string(), to: z.string(), claimUid: z.string() })
    .exactOptional(),
  /** Update: the version of the runtime that it goes to. */
  runtime: z.string().exactOptional(),
  /** Target: of this attempt alone, for a source that asks again. */
  secret: z.object({ identity: z.string(), key: z.string() }).exactOptional(),
});

export type MoveNote = z.infer<typeof shape>;
export type Why = z.infer<typeof why>;
export type Role = MoveNote["role"];

/** The notes of this node. Only one agent writes them; what is read here is what is on the disk. */
export class MoveNotes {
  readonly #directory: string;
  readonly #notes = new Map<string, MoveNote>();
  #tail: Promise<unknown> = Promise.resolve();

  constructor(paths: NodePaths) {
    this.#directory = join(paths.root, "moves");
  }

  /** Reads all notes; to be awaited before anything is done to an instance. Throws for one that cannot be read. */
  async load(): Promise<void> {
    for (const name of await names(this.#directory)) {
      if (!name.endsWith(".json")) continue;
      const note = shape.parse(JSON.parse(await readFile(join(this.#directory, name), "utf8")));
      this.#notes.set(note.instance.uid, note);
    }
  }

  get(instanceUid: string): MoveNote | undefined {
    return this.#notes.get(instanceUid);
  }

  list(): MoveNote[] {
    return [...this.#notes.values()];
  }

  /** Resolves when it would survive a power cut. */
  async write(note: MoveNote): Promise<void> {
    const text = JSON.stringify(shape.parse(note));
    await this.#serially(async () => {
      await mkdir(this.#directory, { recursive: true, mode: 0o700 });
      await writeAtomic(this.#file(note), text);
      this.#notes.set(note.instance.uid, note);
    });
  }

  /** Makes ready to write it: the returned function resolves when the agent's own end would not undo it; a power cut may. */
  async stage(note: MoveNote): Promise<() => Promise<void>> {
    const text = JSON.stringify(shape.parse(note));
    const put = await stageAtomic(this.#file(note), text);
    return () =>
      this.#serially(() => {
        put();
        this.#notes.set(note.instance.uid, note);
        return Promise.resolve();
      });
  }

  /** Resolves when it is gone for good; one that is not there is no error. */
  async remove(note: MoveNote): Promise<void> {
    await this.#serially(async () => {
      await removeStaged(this.#file(note));
      await rm(this.#file(note), { force: true });
      await syncDirectory(this.#directory);
      this.#notes.delete(note.instance.uid);
    });
  }

  #file({ instance: { uid } }: MoveNote): string {
    if (!/^[0-9a-f-]{36}$/.test(uid)) throw new TypeError(`not a uid: ${uid.slice(0, 64)}`);
    return join(this.#directory, `${uid}.json`);
  }

  #serially(task: () => Promise<void>): Promise<void> {
    const result = this.#tail.then(task, task);
    this.#tail = result.catch(() => undefined);
    return result;
  }
}

async function names(directory: string): Promise<string[]> {
  try {
    return await readdir(directory);
  } catch (error) {
    if (errorCode(error) === "ENOENT") return [];
    throw error;
  }
}
