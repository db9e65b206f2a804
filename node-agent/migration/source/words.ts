/** status.source from counters and marks. Pure. */
import type { MigrationSource } from "../../../crds/migration.ts";
import type { MoveCounters } from "../../instance/move.ts";
import { bytesText, percentText, rateText, timeText } from "../words.ts";

const whole = (value: number): number => Math.max(0, Math.round(value));

/** What the counters say, as status.source tells it. */
export function progressWords({ disk, memory, expectedPauseMs }: MoveCounters): Partial<MigrationSource> {
  // In later passes more is sent than there is: what is left counts.
  const memoryDone = Math.max(0, memory.totalBytes - memory.remainingBytes);
  const begun = memory.totalBytes > 0;
  return {
    progress: percentText(disk.doneBytes + (begun ? memoryDone : 0), disk.totalBytes + memory.totalBytes),
    ...(begun ? { memory: `${bytesText(memoryDone)}/${bytesText(memory.totalBytes)}` } : {}),
    ...(disk.totalBytes > 0 ? { disk: `${bytesText(disk.doneBytes)}/${bytesText(disk.totalBytes)}` } : {}),
    ...(begun ? { rate: rateText(memory.bytesPerSecond) } : {}),
    ...(begun
      ? {
          memoryCounters: {
            doneBytes: whole(memory.doneBytes),
            totalBytes: whole(memory.totalBytes),
            remainingBytes: whole(memory.remainingBytes),
            bytesPerSecond: whole(memory.bytesPerSecond),
            dirtyBytesPerSecond: whole(memory.dirtyBytesPerSecond),
            rounds: whole(memory.rounds),
            ...(memory.throttlePercent === undefined ? {} : { throttlePercent: whole(memory.throttlePercent) }),
          },
        }
      : {}),
    ...(disk.totalBytes > 0 ? { diskCounters: { doneBytes: whole(disk.doneBytes), totalBytes: whole(disk.totalBytes) } } : {}),
    ...(expectedPauseMs === undefined ? {} : { expectedPauseMs: whole(expectedPauseMs) }),
  };
}

export interface Mark {
  mark: string;
  /** ms; only differences count. */
  at: number;
}

const MOST_MARKS = 32;

/** The switchover step by step, counted from the guest's stop. */
export function pauseWords(
  stoppedAt: number,
  ranAt: number,
  marks: readonly Mark[],
): Required<Pick<MigrationSource, "pause" | "pauseMs" | "timeline">> {
  const tenth = (ms: number): number => Math.round(ms * 10) / 10;
  const pauseMs = tenth(Math.max(0, ranAt - stoppedAt));
  return {
    pause: timeText(pauseMs),
    pauseMs,
    timeline: [...marks]
      .sort((a, b) => a.at - b.at)
      .slice(-MOST_MARKS)
      .map(({ mark, at }) => ({ mark, ms: tenth(at - stoppedAt) })),
  };
}
