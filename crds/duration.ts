/** Spans of time as Drover's schemas admit them, such as 300ms, 1.5s or 1h30m. */

const UNITS: Record<string, number> = { ms: 1, s: 1000, m: 60_000, h: 3_600_000 };

/**
 * Milliseconds of a span such as "300ms" or "1h30m".
 * Throws a RangeError for what is not such a span.
 */
export function parseDuration(text: string): number {
  if (!/^(\d+(\.\d+)?(ms|s|m|h))+$/.test(text)) throw new RangeError(`'${text}' is not a time such as 300ms, 30s or 30m`);
  let total = 0;
  for (const [, value = "", unit = ""] of text.matchAll(/(\d+(?:\.\d+)?)(ms|s|m|h)/g))
    total += Number(value) * (UNITS[unit] ?? 0);
  return total;
}

/** A span for a person, in its largest whole unit and the next: 90000 is "1m30s", 79 is "79ms". Rounds down to ms. */
export function formatDuration(ms: number): string {
  const whole = Math.floor(ms);
  if (whole < 1000) return `${whole}ms`;
  if (whole < 60_000) return `${Math.floor(whole / 100) / 10}s`;
  const minutes = Math.floor(whole / 60_000);
  const [hours, left] = [Math.floor(minutes / 60), minutes % 60];
  const seconds = Math.floor((whole % 60_000) / 1000);
  if (hours > 0) return left === 0 ? `${hours}h` : `${hours}h${left}m`;
  return seconds === 0 ? `${minutes}m` : `${minutes}m${seconds}s`;
}
