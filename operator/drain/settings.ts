/** What the chart decides about drains. */
import { z } from "zod";
import { parseDuration } from "../../crds/duration.ts";

export interface DrainSettings {
  /** How long an instance may be asked to leave before people are told what they can do. */
  deadlineMs: number;
}

export const DEFAULT_DRAIN: DrainSettings = { deadlineMs: 30 * 60_000 };

export interface WebhookSettings {
  port: number;
  /** Holds tls.crt, tls.key and token. */
  directory: string;
}

const schema = z.object({
  DROVER_DRAIN_DEADLINE: z
    .string()
    .default("30m")
    .transform((text, ctx) => {
      try {
        return parseDuration(text);
      } catch (error) {
        ctx.addIssue({
          code: "custom",
          message: `DROVER_DRAIN_DEADLINE: ${error instanceof Error ? error.message : String(error)}`,
        });
        return z.NEVER;
      }
    }),
  DROVER_WEBHOOK_DIR: z.string().default(""),
  DROVER_WEBHOOK_PORT: z.coerce
    .number("DROVER_WEBHOOK_PORT must be a port such as 9443")
    .int("DROVER_WEBHOOK_PORT must be a whole number")
    .min(0, "DROVER_WEBHOOK_PORT must not be negative")
    .max(65535, "DROVER_WEBHOOK_PORT must be at most 65535")
    .default(9443),
});

/** From the environment. `webhook` is undefined where no directory is given: then evictions are refused by the budget alone. */
export function drainSettings(env: Record<string, string | undefined>): DrainSettings & { webhook: WebhookSettings | undefined } {
  const parsed = schema.safeParse(env);
  if (!parsed.success) {
    const complaints = parsed.error.issues.map(({ message }) => message).join("; ");
    throw new Error(`the operator's environment is wrong: ${complaints}`, { cause: parsed.error });
  }
  const { DROVER_DRAIN_DEADLINE: deadlineMs, DROVER_WEBHOOK_DIR: directory, DROVER_WEBHOOK_PORT: port } = parsed.data;
  return { deadlineMs, webhook: directory === "" ? undefined : { directory, port } };
}
