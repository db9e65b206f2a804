/** What the chart decides about moves, and how a Migration's policy is filled in from it. */
import { z } from "zod";
import { parseDuration } from "../../crds/duration.ts";
import type { MigrationPolicy, MigrationSpec } from "../../crds/migration.ts";
import { parseBytes } from "../../crds/quantity.ts";

type OnStall = MigrationPolicy["onStall"];

export interface MigrationSettings {
  /** Whether memory and disks are encrypted on their way. */
  tls: boolean;
  /** Connections that memory goes by at once, where a move can have more than one. */
  connections: number;
  defaults: { maxPauseMs: number; maxBytesPerSecond: number | undefined; onStall: OnStall; timeoutMs: number };
  parallel: Limits;
  /** Attempts after the first, where what went wrong can pass. */
  retries: number;
  /** How long after a failed attempt the next one may begin: twice as long each time. */
  backoff: { firstMs: number; mostMs: number };
  /** Migrations that have ended: so many are kept of each instance, and none that is older. */
  history: { count: number; ageMs: number };
}

/** Moves at the same time. */
export interface Limits {
  outPerNode: number;
  inPerNode: number;
  perCluster: number;
}

const BACKOFF = { firstMs: 10_000, mostMs: 5 * 60_000 };

const span = (name: string) =>
  z.string(`${name} must be a time such as 30m`).transform((text, ctx) => {
    try {
      return parseDuration(text);
    } catch (error) {
      ctx.addIssue({ code: "custom", message: `${name}: ${error instanceof Error ? error.message : String(error)}` });
      return z.NEVER;
    }
  });

const rate = z.string("defaults.maxBytesPerSecond must be a number of bytes such as 256Mi, or empty").transform((text, ctx) => {
  if (text === "") return undefined;
  try {
    return parseBytes(text);
  } catch (error) {
    ctx.addIssue({
      code: "custom",
      message: `defaults.maxBytesPerSecond: ${error instanceof Error ? error.message : String(error)}`,
    });
    return z.NEVER;
  }
});

const count = (name: string, least: number) =>
  z.coerce
    .number(`${name} must be a number`)
    .int(`${name} must be a whole number`)
    .min(least, `${name} must be at least ${least}`);

const schema = z.object({
  tls: z.boolean("tls must be true or false").default(true),
  connections: count("connections", 1).max(8, "connections must be at most 8").default(1),
  defaults: z
    .object({
      maxPause: span("defaults.maxPause").default(300),
      maxBytesPerSecond: rate.optional(),
      onStall: z
        .enum(["Throttle", "PostCopy", "Abort"], "defaults.onStall must be Throttle, PostCopy or Abort")
        .default("Throttle"),
      timeout: span("defaults.timeout").default(6 * 3_600_000),
    })
    .prefault({}),
  parallel: z
    .object({
      outPerNode: count("parallel.outPerNode", 1).default(2),
      inPerNode: count("parallel.inPerNode", 1).default(2),
      perCluster: count("parallel.perCluster", 1).default(8),
    })
    .prefault({}),
  retries: count("retries", 0).default(3),
  history: z
    .object({
      count: count("history.count", 0).default(5),
      age: span("history.age").default(168 * 3_600_000),
    })
    .prefault({}),
});

/**
 * Reads the chart's `migration` values as JSON; {} gives the defaults.
 * Throws one error that names everything that is wrong, and what it should be.
 */
export function migrationSettings(text: string): MigrationSettings {
  let values: unknown;
  try {
    values = JSON.parse(text);
  } catch (error) {
    throw new Error(`DROVER_MIGRATION must be JSON, such as {"retries": 3}`, { cause: error });
  }
  const parsed = schema.safeParse(values);
  if (!parsed.success) {
    const complaints = parsed.error.issues.map(({ message }) => message).join("; ");
    throw new Error(`DROVER_MIGRATION is wrong: ${complaints}`, { cause: parsed.error });
  }
  const { tls, connections, defaults, parallel, retries, history } = parsed.data;
  const { maxPause: maxPauseMs, timeout: timeoutMs, maxBytesPerSecond, onStall } = defaults;
  return {
    tls,
    connections,
    defaults: { maxPauseMs, maxBytesPerSecond, onStall, timeoutMs },
    parallel,
    retries,
    backoff: BACKOFF,
    history: { count: history.count, ageMs: history.age },
  };
}

/**
 * The policy that the agents follow: the Migration's own, and the chart's where it says nothing. Several connections only for a move
 * without a limit that does not count on post-copy: QEMU keeps neither with them (docs/decisions/0066). Pure.
 */
export function resolvePolicy(
  spec: Pick<MigrationSpec, "policy">,
  { tls, connections, defaults }: MigrationSettings,
): MigrationPolicy {
  const { maxPause, maxBytesPerSecond, onStall, timeout } = spec.policy ?? {};
  const stall = onStall ?? defaults.onStall;
  const most = maxBytesPerSecond === undefined ? defaults.maxBytesPerSecond : parseBytes(maxBytesPerSecond);
  return {
    maxPauseMs: maxPause === undefined ? defaults.maxPauseMs : Math.round(parseDuration(maxPause)),
    ...(most === undefined ? {} : { maxBytesPerSecond: most }),
    onStall: stall,
    timeoutMs: timeout === undefined ? defaults.timeoutMs : Math.round(parseDuration(timeout)),
    tls,
    ...(connections > 1 && most === undefined && stall !== "PostCopy" ? { connections } : {}),
  };
}
