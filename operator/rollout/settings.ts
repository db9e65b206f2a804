/** What the chart decides about new runtimes under running guests. */
import { z } from "zod";
import { parseDuration } from "../../crds/duration.ts";
import type { UpdateLimits } from "../migration/in-place/policy.ts";
import { parseWindow, type Window } from "./window.ts";

export interface RuntimeUpdateSettings extends UpdateLimits {
  /** Auto: Drover makes the Migrations; Manual: people do, and the Rollout shows how far they are; Off: there is no Rollout. */
  mode: "Auto" | "Manual" | "Off";
  /** When updates may begin; undefined: at any time. */
  window: Window | undefined;
}

const limit = (name: string) =>
  z.coerce.number(`${name} must be a number`).int(`${name} must be a whole number`).min(1, `${name} must be at least 1`);

/** What the value stands for, or the complaint with its name. */
const parsed = <T>(name: string, parse: (text: string) => T) =>
  z.string(`${name} must be text`).transform((text, ctx): T => {
    try {
      return parse(text);
    } catch (error) {
      ctx.addIssue({ code: "custom", message: `${name}: ${error instanceof Error ? error.message : String(error)}` });
      return z.NEVER;
    }
  });

const schema = z.object({
  mode: z.enum(["Auto", "Manual", "Off"], "mode must be Auto, Manual or Off").default("Auto"),
  perNode: limit("perNode").default(2),
  perCluster: limit("perCluster").default(4),
  maxPause: parsed("maxPause", (text) => Math.round(parseDuration(text))).default(300),
  window: z
    .object({
      start: z.string("window.start must be a time such as 22:00").default(""),
      end: z.string("window.end must be a time such as 04:30").default(""),
    })
    .prefault({})
    .transform(({ start, end }, ctx) => {
      try {
        return parseWindow(start, end);
      } catch (error) {
        ctx.addIssue({ code: "custom", message: error instanceof Error ? error.message : String(error) });
        return z.NEVER;
      }
    }),
});

/**
 * Reads the chart's `runtimeUpdate` values as JSON; {} gives the defaults.
 * Throws one error that names everything that is wrong, and what it should be.
 */
export function runtimeUpdateSettings(text: string): RuntimeUpdateSettings {
  let values: unknown;
  try {
    values = JSON.parse(text);
  } catch (error) {
    throw new Error(`DROVER_RUNTIME_UPDATE must be JSON, such as {"mode": "Manual"}`, { cause: error });
  }
  const result = schema.safeParse(values);
  if (!result.success) {
    const complaints = result.error.issues.map(({ message }) => message).join("; ");
    throw new Error(`DROVER_RUNTIME_UPDATE is wrong: ${complaints}`, { cause: result.error });
  }
  const { mode, perNode, perCluster, maxPause: maxPauseMs, window } = result.data;
  return { mode, perNode, perCluster, maxPauseMs, window };
}
