/** Kubernetes quantities of bytes, as far as Drover's schemas admit them (no exponents, no milli). */

const FACTORS: Record<string, bigint> = {
  "": 1n,
  k: 10n ** 3n,
  M: 10n ** 6n,
  G: 10n ** 9n,
  T: 10n ** 12n,
  P: 10n ** 15n,
  Ki: 1n << 10n,
  Mi: 1n << 20n,
  Gi: 1n << 30n,
  Ti: 1n << 40n,
  Pi: 1n << 50n,
};

export const MIB = 1024 ** 2;
export const GIB = 1024 ** 3;

/**
 * Bytes of a quantity such as "512Mi" or "1.5Gi", rounded up to whole bytes.
 * Throws a RangeError for what is not such a quantity, or is too large to be counted exactly.
 */
export function parseBytes(quantity: string): number {
  const [, whole = "", fraction = "", unit = ""] = /^(\d+)(?:\.(\d+))?([A-Za-z]*)$/.exec(quantity) ?? [];
  const factor = FACTORS[unit];
  if (whole === "" || factor === undefined) throw new RangeError(`'${quantity}' is not a quantity of bytes such as 512Mi or 8Gi`);
  const scale = 10n ** BigInt(fraction.length);
  const bytes = Number((BigInt(whole + fraction) * factor + scale - 1n) / scale);
  if (!Number.isSafeInteger(bytes)) throw new RangeError(`'${quantity}' is more bytes than can be counted`);
  return bytes;
}

/** Whole GiB that hold so many bytes. */
export const gibRoundedUp = (bytes: number): number => Math.ceil(bytes / GIB);

/** Bytes for a person, in a column: at most three digits and a unit, such as 24Gi, 7.9Gi or 512Mi. Rounds down. */
export function formatBytes(bytes: number): string {
  const units = ["", "Ki", "Mi", "Gi", "Ti", "Pi"];
  let value = bytes;
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit += 1;
  }
  const rounded = value < 10 && unit > 0 ? Math.floor(value * 10) / 10 : Math.floor(value);
  return `${rounded}${units[unit] ?? ""}`;
}
