/**
 * That somebody asked a claim to go, noted where every replica sees it and where it ends with the claim: on the claim pod itself.
 * Only the operator may write these annotations (the chart's policy drover-claims-make).
 */
import type { Pod } from "../../kube/index.ts";

const FIRST = "drover.dev/evicted-first";
const LAST = "drover.dev/evicted-last";
/** All that is kept of a claim's annotations in the operator's cache. */
export const NOTE_ANNOTATIONS: readonly string[] = [FIRST, LAST];

/** Since when a claim has been asked to go, and when it was asked last; ms since 1970. */
export interface Asked {
  first: number;
  last: number;
}

/** An evictor that was not heard of for so long has given up; the next one begins anew. Some ask every few minutes only. */
const SERIES_ENDS_MS = 10 * 60_000;
/** `kubectl drain` asks every 5 s: one note in a while is enough. */
const NOTE_EVERY_MS = 20_000;

/** What is noted on a claim; undefined: nothing, or nothing that can be read. Pure. */
export function askedOf(pod: Pick<Pod, "metadata">): Asked | undefined {
  const time = (name: string): number => Date.parse(pod.metadata.annotations?.[name] ?? "");
  const [first, last] = [time(FIRST), time(LAST)];
  return Number.isNaN(last) ? undefined : { first: Number.isNaN(first) ? last : Math.min(first, last), last };
}

/** What is known once an eviction was asked for at `now`. Pure. */
export function askedNow(before: Asked | undefined, now: number): Asked {
  const goesOn = before !== undefined && now - before.last < SERIES_ENDS_MS;
  return { first: goesOn ? before.first : now, last: now };
}

/** Whether it is worth a write. Pure. */
export const worthNoting = (before: Asked | undefined, now: number): boolean =>
  before === undefined || Math.abs(now - before.last) >= NOTE_EVERY_MS;

/** Merge patch that notes it on this very pod: another of the same name refuses it. */
export const notePatch = (uid: string, asked: Asked): object => ({
  metadata: {
    uid,
    annotations: { [FIRST]: new Date(asked.first).toISOString(), [LAST]: new Date(asked.last).toISOString() },
  },
});
