/** The time of day in which updates may begin, UTC. Pure. */

const MINUTE = 60_000;
const DAY_MINUTES = 24 * 60;

/** Minutes of the day; it may span midnight. */
export interface Window {
  start: number;
  end: number;
}

function minutes(name: string, text: string): number {
  const [, hours, rest] = /^([01][0-9]|2[0-3]):([0-5][0-9])$/.exec(text) ?? [];
  if (hours === undefined || rest === undefined)
    throw new Error(`${name} must be a time of day such as 22:00 (UTC), not ${text}`);
  return Number(hours) * 60 + Number(rest);
}

/** Undefined where both are empty: at any time. Throws what is wrong. */
export function parseWindow(start: string, end: string): Window | undefined {
  if (start === "" && end === "") return undefined;
  if (start === "" || end === "") throw new Error("window needs both start and end, or neither");
  const window = { start: minutes("window.start", start), end: minutes("window.end", end) };
  if (window.start === window.end) throw new Error(`window begins and ends at ${start}: leave both empty for the whole day`);
  return window;
}

/** Whether it is open at this moment, and for how long it stays so. */
export function windowAt(window: Window | undefined, now: number): { open: boolean; changesInMs: number | undefined } {
  if (window === undefined) return { open: true, changesInMs: undefined };
  const minute = (now / MINUTE) % DAY_MINUTES;
  const until = (then: number): number => (then - minute + DAY_MINUTES) % DAY_MINUTES || DAY_MINUTES;
  const [opens, closes] = [until(window.start), until(window.end)];
  const open = closes < opens;
  return { open, changesInMs: Math.ceil((open ? closes : opens) * MINUTE) };
}

/** For people: `22:00`. */
export const clockText = (minute: number): string =>
  `${String(Math.floor(minute / 60)).padStart(2, "0")}:${String(minute % 60).padStart(2, "0")}`;
