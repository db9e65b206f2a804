/** How far a cold move of an instance is, kept on the node: nothing runs that could be asked. */
import { mkdir, readFile, rm } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import { errorCode } from "../../errors.ts";
import type { NodePaths } from "../../node.ts";
import { syncDirectory, writeAtomic } from "../../pool/files.ts";

const shape = z.discriminatedUnion("phase", [
  /** Source: all disks have been sent; held: the leave to say so was given; complete: the target was told that it has all. */
  z.object({
    phase: z.enum(["copied", "held", "complete"]),
    address: z.string(),
    port: z.int(),
    secret: z.object({ identity: z.string(), key: z.string() }).exactOptional(),
  }),
  /** Target: `files` are being filled; complete: all of them are whole; running: they are this node's. */
  z.object({ phase: z.enum(["receiving", "received", "running"]), files: z.array(z.string()) }),
]);

export type ColdState = z.infer<typeof shape>;

export class ColdStates {
  readonly #paths: NodePaths;

  constructor(paths: NodePaths) {
    this.#paths = paths;
  }

  /** Where a move keeps its files. */
  directory(instanceUid: string): string {
    if (!/^[0-9a-f-]{36}$/.test(instanceUid)) throw new TypeError(`not a uid: ${instanceUid.slice(0, 64)}`);
    return join(this.#paths.root, "cold", instanceUid);
  }

  async read(instanceUid: string): Promise<ColdState | undefined> {
    try {
      return shape.parse(JSON.parse(await readFile(this.#file(instanceUid), "utf8")));
    } catch (error) {
      if (errorCode(error) === "ENOENT") return undefined;
      throw error;
    }
  }

  /** Resolves when it would survive a power cut. */
  async write(instanceUid: string, state: ColdState): Promise<void> {
    await this.make(instanceUid);
    await writeAtomic(this.#file(instanceUid), JSON.stringify(state));
  }

  async make(instanceUid: string): Promise<void> {
    await mkdir(this.directory(instanceUid), { recursive: true, mode: 0o700 });
  }

  /** May be repeated. */
  async remove(instanceUid: string): Promise<void> {
    const directory = this.directory(instanceUid);
    await rm(directory, { recursive: true, force: true });
    await mkdir(join(directory, ".."), { recursive: true, mode: 0o700 });
    await syncDirectory(join(directory, ".."));
  }

  #file(instanceUid: string): string {
    return join(this.directory(instanceUid), "state.json");
  }
}
