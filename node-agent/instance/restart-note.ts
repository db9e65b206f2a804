/** What the agent must not forget about an instance's restarts, in a file beside its note: a new agent goes on counting. */
import { mkdir, readFile, rename, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { z } from "zod";
import { errorCode } from "../errors.ts";
import type { NodePaths } from "../node.ts";

const shape = z.object({
  restarts: z.int().min(0),
  streak: z.int().min(0),
  restartedAt: z.string().optional(),
});

export interface RestartNote {
  /** Whether anything was noted: without it, a value of spec.restartedAt may have been acted on or not. */
  known: boolean;
  /** Starts after the guest ended by itself. */
  restarts: number;
  /** Those of them that followed each other quickly. */
  streak: number;
  /** The spec.restartedAt that was acted on. */
  restartedAt?: string;
}

export const NO_NOTE: RestartNote = { known: false, restarts: 0, streak: 0 };

const file = (paths: NodePaths, instanceUid: string): string => join(paths.instance(instanceUid), "restarts.json");

/** What was noted; NO_NOTE for none, or for one that cannot be read: counting begins anew then. */
export async function readRestartNote(paths: NodePaths, instanceUid: string): Promise<RestartNote> {
  try {
    const parsed = shape.safeParse(JSON.parse(await readFile(file(paths, instanceUid), "utf8")));
    if (!parsed.success) return NO_NOTE;
    const { restartedAt, ...counts } = parsed.data;
    return { known: true, ...counts, ...(restartedAt === undefined ? {} : { restartedAt }) };
  } catch (error) {
    if (error instanceof SyntaxError || errorCode(error) === "ENOENT") return NO_NOTE;
    throw error;
  }
}

/** Written in one piece. Removed with the instance's directory. */
export async function writeRestartNote(paths: NodePaths, instanceUid: string, note: RestartNote): Promise<void> {
  const { known: _, ...kept } = note;
  const target = file(paths, instanceUid);
  await mkdir(dirname(target), { recursive: true });
  await writeFile(`${target}.new`, JSON.stringify(kept), { mode: 0o600 });
  await rename(`${target}.new`, target);
}
