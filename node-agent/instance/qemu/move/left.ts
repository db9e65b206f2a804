/** Whether a guest has left its QEMU, of which QEMU speaks in two places that do not change together. Pure. */
import type { Migration } from "./commands.ts";

interface RunState {
  status: string;
}

/** QEMU says that it is completed a moment before its run state does. */
export const isSettling = ({ status }: Pick<Migration, "status">, run: RunState): boolean =>
  status === "completed" && run.status === "finish-migrate";

/**
 * All of it is at the target, and its CPUs have not run here since. Once it runs on here, because the move was given up, QEMU still says
 * completed.
 */
export const hasLeft = (migration: Pick<Migration, "status">, run: RunState): boolean =>
  run.status === "postmigrate" || isSettling(migration, run);
