/** Kubernetes quantities, exactly: in billionths, so that every unit from n to E can be added and compared. */

const NANO = 10n ** 9n;
const UNITS: Record<string, bigint> = {
  n: 1n,
  u: 10n ** 3n,
  m: 10n ** 6n,
  "": NANO,
  k: NANO * 10n ** 3n,
  M: NANO * 10n ** 6n,
  G: NANO * 10n ** 9n,
  T: NANO * 10n ** 12n,
  P: NANO * 10n ** 15n,
  E: NANO * 10n ** 18n,
  Ki: NANO << 10n,
  Mi: NANO << 20n,
  Gi: NANO << 30n,
  Ti: NANO << 40n,
  Pi: NANO << 50n,
  Ei: NANO << 60n,
};

/** Billionths of a quantity such as 250m, 1.5Gi or 12e3, rounded up. Throws a RangeError for anything else. */
export function parseQuantity(text: string): bigint {
  const match = /^(\d+)(?:\.(\d*))?(?:[eE]([+-]?\d{1,2})|([A-Za-z]{0,2}))$/.exec(text);
  const [, whole = "", fraction = "", exponent, unit = ""] = match ?? [];
  const factor = UNITS[unit];
  if (match === null || factor === undefined) throw new RangeError(`'${text}' is not a quantity`);
  const digits = BigInt(whole + fraction) * factor;
  const power = Number(exponent ?? 0) - fraction.length;
  if (power >= 0) return digits * 10n ** BigInt(power);
  const scale = 10n ** BigInt(-power);
  return (digits + scale - 1n) / scale;
}

/** A quantity of so many billionths, in the largest of the units "", m, u, n that shows it whole. */
export function formatQuantity(nano: bigint): string {
  for (const unit of ["", "m", "u"]) {
    const factor = UNITS[unit] ?? NANO;
    if (nano % factor === 0n) return `${nano / factor}${unit}`;
  }
  return `${nano}n`;
}
