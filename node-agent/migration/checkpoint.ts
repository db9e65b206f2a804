/** Steps of a move at which a test can hold it, to see what a fault does right there. */
import { mkdir, rm, watch, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { exists } from "../pool/files.ts";

export type SourceStep =
  | "connect"
  | "copy-disks"
  | "copy-memory"
  | "write-handover"
  | "allow-pause"
  | "held"
  | "complete"
  | "go"
  | "ran"
  | "release";
export type LocalStep = "copy-disks" | "write-handover" | "complete" | "note" | "pivot" | "settle" | "write-done" | "release";
export type UpdateStep = "prepare" | "write-handover" | "switch" | "note" | "run" | "write-done" | "release";
export type TargetStep = "prepare" | "receive" | "ready" | "note-ran" | "resume" | "write-done" | "release";

/** Called right before a step; resolves when it may be done. */
export interface Checkpoint {
  (side: "source", step: SourceStep): Promise<void> | void;
  (side: "target", step: TargetStep): Promise<void> | void;
  (side: "local", step: LocalStep): Promise<void> | void;
  (side: "update", step: UpdateStep): Promise<void> | void;
}

export const noCheckpoint: Checkpoint = () => undefined;

/** Says `<side>.<step>.reached` in the directory, and waits for as long as `<side>.<step>.hold` is there. */
export function fileCheckpoint(directory: string): Checkpoint {
  return async (side: string, step: string): Promise<void> => {
    await mkdir(directory, { recursive: true });
    const name = `${side}.${step}.hold`;
    const stop = new AbortController();
    const changes = watch(directory, { signal: stop.signal })[Symbol.asyncIterator]();
    /** The next change after this call. The last one is never waited for. */
    const change = (): Promise<unknown> => {
      const next = changes.next();
      next.catch(() => undefined);
      return next;
    };
    try {
      // Watched before it is looked for: its end cannot be missed.
      let next = change();
      await writeFile(join(directory, `${side}.${step}.reached`), `${new Date().toISOString()}\n`);
      for (; await exists(join(directory, name)); next = change()) await next;
    } finally {
      stop.abort();
    }
    await rm(join(directory, `${side}.${step}.reached`), { force: true });
  };
}
