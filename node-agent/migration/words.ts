/** Figures as people read them. Pure. */

const UNITS = ["B", "KiB", "MiB", "GiB", "TiB"] as const;

/** Three figures at most: 1.25GiB, 12.5MiB, 512B. */
export function bytesText(bytes: number): string {
  let value = Math.max(0, bytes);
  let unit = 0;
  while (value >= 1024 && unit < UNITS.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return `${figure(value, unit === 0)}${UNITS[unit] ?? ""}`;
}

export const rateText = (bytesPerSecond: number): string => `${bytesText(bytesPerSecond)}/s`;

/** 79ms, 1.2s, 3m20s. */
export function timeText(ms: number): string {
  if (ms < 1_000) return `${ms < 10 ? Math.round(ms * 10) / 10 : Math.round(ms)}ms`;
  if (ms < 60_000) return `${Math.round(ms / 100) / 10}s`;
  return `${Math.floor(ms / 60_000)}m${Math.round((ms % 60_000) / 1_000)}s`;
}

/** Done of all, in whole percent; never 100 before it is. */
export const percentText = (done: number, total: number): string =>
  `${total <= 0 ? 0 : Math.max(0, Math.min(done >= total ? 100 : 99, Math.floor((100 * done) / total)))}%`;

function figure(value: number, whole: boolean): string {
  if (whole || value >= 100) return String(Math.round(value));
  return String(value >= 10 ? Math.round(value * 10) / 10 : Math.round(value * 100) / 100);
}
