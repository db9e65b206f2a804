/** The policy of an update in place: only the pause and the time matter where nothing is sent. Pure. */
import { parseDuration } from "../../../crds/duration.ts";
import type { MigrationPolicy, MigrationSpec } from "../../../crds/migration.ts";

/** What the chart decides about updates in place, whoever asks for them. */
export interface UpdateLimits {
  /** Updates at the same time on one node. */
  perNode: number;
  /** In the whole cluster. */
  perCluster: number;
  /** Longest pause of a guest, where its Migration says nothing else. */
  maxPauseMs: number;
}

/** A new QEMU is ready within a second or two, and takes over in milliseconds; a node with other sorrows gets some more. */
export const UPDATE_TIMEOUT_MS = 2 * 60_000;

export function updatePolicy({ policy }: Pick<MigrationSpec, "policy">, { maxPauseMs }: UpdateLimits): MigrationPolicy {
  const { maxPause, timeout } = policy ?? {};
  return {
    maxPauseMs: maxPause === undefined ? maxPauseMs : Math.round(parseDuration(maxPause)),
    onStall: "Abort",
    timeoutMs: timeout === undefined ? UPDATE_TIMEOUT_MS : Math.round(parseDuration(timeout)),
    tls: false,
  };
}
