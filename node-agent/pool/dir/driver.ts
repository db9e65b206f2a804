/** Pools in a directory that the node has: what is there, and each step of their plans. */
import { randomUUID } from "node:crypto";
import { link, lstat, mkdir, readdir, readFile, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import { errorCode, errorText, UserError } from "../../errors.ts";
import { nodePid, onNode, type NodePaths } from "../../node.ts";
import { performStep, type PoolDriver, type PoolTarget, type StepActions } from "../driver.ts";
import { makePoolDirectories, POOL_MODE, removeEmptyDirectory, syncDirectory, writeAtomic } from "../files.ts";
import { mountAt, notVisible, unmountPool } from "../mounts.ts";
import { readNote, removeNote, writeNote } from "../notes.ts";
import type { PoolStep, Undo } from "../steps.ts";
import { forbiddenPath, planDirectory, planDirectoryRemoval, type DirMark, type DirSeen } from "./plan.ts";
import { hasJoined, joinDirectory, leaveDirectory } from "./shared.ts";

export interface DirOptions {
  paths: NodePaths;
  nodeName: string;
}

const MARK = ".drover-pool";
const OURS = ["images", "volumes"];

const dirMark = z.object({ pool: z.string(), node: z.string(), id: z.string(), shared: z.boolean().optional() });

export class DirDriver implements PoolDriver {
  readonly #paths: NodePaths;
  readonly #node: string;
  /** Where the directory of a pool is, from its last plan. */
  readonly #where = new Map<string, { asked: string; path: string; shared: boolean }>();

  constructor(options: DirOptions) {
    this.#paths = options.paths;
    this.#node = options.nodeName;
  }

  async plan(pool: PoolTarget): Promise<PoolStep[]> {
    const path = pool.spec.source.path ?? "/";
    const shared = pool.spec.shared === true;
    await mkdir(this.#paths.pools, { recursive: true, mode: POOL_MODE });
    const directory = await seeDirectory(path, this.#paths.root);
    const place = this.#paths.pool(pool.name);
    const [note, bind] = await Promise.all([readNote(this.#paths, pool.name), this.#seeBind(place, directory?.path)]);
    const directories = bind?.visible === true && (await haveAll(place, OURS));
    const joined = shared && bind?.visible === true && (await hasJoined(place, this.#node));
    if (directory) this.#where.set(pool.name, { asked: path, path: directory.path, shared });
    return planDirectory(
      { directory, note: note ?? null, bind, directories, joined },
      { name: pool.name, node: this.#node, shared, directory: pool.directory, path, root: this.#paths.root },
    );
  }

  async planRemoval(pool: string): Promise<PoolStep[]> {
    const note = await readNote(this.#paths, pool);
    const bind = await this.#seeBind(this.#paths.pool(pool), undefined);
    return planDirectoryRemoval({ note: note ?? null, bind });
  }

  async perform(pool: string, step: PoolStep, signal: AbortSignal): Promise<Undo | undefined> {
    const place = this.#paths.pool(pool);
    const actions: StepActions = {
      bind: () => this.#bind(pool, place, signal),
      join: async () => {
        await joinDirectory(place, this.#node);
        return () => leaveDirectory(place, this.#node).then(() => undefined);
      },
      mark: () => this.#mark(pool, place),
      note: () => this.#note(pool, place),
      "make-directories": () => makePoolDirectories(place, this.#half(pool)),
      delete: () => this.#delete(pool, place),
      unmount: () => unmountPool(pool, place).then(() => removeEmptyDirectory(place)),
    };
    return performStep(actions, step);
  }

  async #seeBind(place: string, directory: string | undefined): Promise<DirSeen["bind"]> {
    const [onTheNode, own] = await Promise.all([mountAt(place, nodePid()), mountAt(place, "self")]);
    if (!onTheNode) return null;
    const visible = own?.source === onTheNode.source && own.root === onTheNode.root;
    const same = directory === undefined || (await sameDirectory(onNodeRoot(place), onNodeRoot(directory)));
    return { same, visible, readOnly: onTheNode.readOnly };
  }

  async #bind(pool: string, place: string, signal: AbortSignal): Promise<Undo> {
    const source = this.#where.get(pool);
    if (!source) throw new Error(`pool ${pool} was not planned`);
    await mkdir(place, { recursive: true, mode: POOL_MODE });
    await onNode("mount", ["-o", "bind,nosuid,nodev,noexec", source.path, place], { deadlineMs: 30_000, signal });
    const undo = (): Promise<void> => unmountPool(pool, place);
    if (!(await mountAt(place, "self"))) {
      await undo();
      throw notVisible(pool);
    }
    return undo;
  }

  /** Ends the names of what this node has not finished. */
  #half(pool: string): string {
    return this.#where.get(pool)?.shared === true ? `.${this.#node}.new` : ".new";
  }

  async #mark(pool: string, place: string): Promise<Undo | void> {
    const file = join(place, MARK);
    const mark: DirMark = { pool, node: this.#node, id: randomUUID() };
    if (this.#where.get(pool)?.shared !== true) {
      await writeAtomic(file, `${JSON.stringify(mark)}\n`);
      return () => rm(file, { force: true });
    }
    // Of several nodes that come at the same moment one makes it, whole; it is not taken back, for others go by it.
    const own = `${file}.${this.#node}`;
    await writeAtomic(own, `${JSON.stringify({ ...mark, shared: true })}\n`);
    try {
      await link(own, file);
    } catch (error) {
      if (errorCode(error) !== "EEXIST") throw error;
      const there = await readMark(file);
      if (there?.pool !== pool || there.shared !== true)
        throw new UserError("PathInUse", `the directory of pool ${pool} was just taken by another pool`, { cause: error });
    } finally {
      await rm(own, { force: true });
    }
    await syncDirectory(place);
  }

  async #note(pool: string, place: string): Promise<Undo> {
    const mark = await readMark(join(place, MARK));
    if (!mark) throw new Error(`${place} has lost its mark`);
    const where = this.#where.get(pool);
    await writeNote(this.#paths, pool, {
      driver: "dir",
      id: mark.id,
      ...(where === undefined ? {} : { path: where.asked }),
      ...(where?.shared === true ? { shared: true } : {}),
    });
    return () => removeNote(this.#paths, pool);
  }

  async #delete(pool: string, place: string): Promise<void> {
    const mark = (await mountAt(place, "self")) ? await readMark(join(place, MARK)) : null;
    if (mark?.pool === pool && (mark.shared !== true || (await leaveDirectory(place, this.#node)))) {
      await rm(join(place, "images"), { recursive: true, force: true });
      await removeEmptyDirectory(join(place, "volumes"));
      for (const half of ["", `.${this.#node}`].flatMap((node) => ["images", "volumes", MARK].map((one) => `${one}${node}.new`)))
        await rm(join(place, half), { recursive: true, force: true });
      await rm(join(place, `${MARK}.${this.#node}`), { force: true });
      await rm(join(place, MARK), { force: true });
    }
    await removeNote(this.#paths, pool);
    if (!(await mountAt(place, nodePid()))) await removeEmptyDirectory(place);
  }
}

/** A path of the node's mount namespace, as the agent's pod reaches it; links in it must have been followed before. */
const onNodeRoot = (path: string): string => join(`/proc/${nodePid()}/root`, path);

async function seeDirectory(path: string, root: string): Promise<DirSeen["directory"]> {
  // Refused by its name alone: not looked into (what /proc/self is depends on who looks).
  if (forbiddenPath(path, root)) return { path, isDirectory: true, mark: null, foreignEntries: [] };
  const { stdout, exitCode } = await onNode("realpath", ["-e", "--", path], { okCodes: [0, 1] });
  if (exitCode !== 0) return null;
  const real = stdout.replace(/\n$/, "");
  const seen = onNodeRoot(real);
  const isDirectory = (await lstat(seen)).isDirectory();
  if (!isDirectory) return { path: real, isDirectory, mark: null, foreignEntries: [] };
  const mark = await readMark(join(seen, MARK));
  const entries = mark ? [] : (await readdir(seen)).filter((name) => OURS.includes(name)).toSorted();
  return { path: real, isDirectory, mark, foreignEntries: entries };
}

async function readMark(file: string): Promise<DirMark | null> {
  try {
    return dirMark.parse(JSON.parse(await readFile(file, "utf8")));
  } catch (error) {
    if (errorCode(error) === "ENOENT") return null;
    throw new UserError("ForeignData", `${MARK} in the pool's directory cannot be read: ${errorText(error)}`, { cause: error });
  }
}

async function sameDirectory(a: string, b: string): Promise<boolean> {
  const [one, two] = await Promise.all([stat(a), stat(b)]);
  return one.dev === two.dev && one.ino === two.ino;
}

async function haveAll(directory: string, names: string[]): Promise<boolean> {
  const there = new Set(await readdir(directory));
  return names.every((name) => there.has(name));
}
