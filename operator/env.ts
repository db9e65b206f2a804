/** What the operator's process is told by its environment. */
import { z } from "zod";
import type { CertificateSettings } from "./certificates/controller.ts";
import type { ClaimSettings } from "./instance/claim.ts";
import { runtimeUpdateSettings, type RuntimeUpdateSettings } from "./rollout/settings.ts";
import { migrationSettings, type MigrationSettings } from "./migration/settings.ts";

const given = (name: string) => z.string(`${name} must be set`).min(1, `${name} must not be empty`);

const schema = z.object({
  POD_NAME: given("POD_NAME"),
  POD_NAMESPACE: given("POD_NAMESPACE"),
  DROVER_HTTP_PORT: z.coerce
    .number("DROVER_HTTP_PORT must be a port such as 8080")
    .int("DROVER_HTTP_PORT must be a whole number")
    .min(0, "DROVER_HTTP_PORT must not be negative")
    .max(65535, "DROVER_HTTP_PORT must be at most 65535")
    .default(8080),
  DROVER_CPU_OVERCOMMIT: z.coerce
    .number("DROVER_CPU_OVERCOMMIT must be a number such as 4")
    .min(0.1, "DROVER_CPU_OVERCOMMIT must be at least 0.1")
    .max(100, "DROVER_CPU_OVERCOMMIT must be at most 100")
    .default(4),
  DROVER_HOLDER_IMAGE: given("DROVER_HOLDER_IMAGE"),
  DROVER_HOLDER_PULL_POLICY: z
    .enum(["Always", "IfNotPresent", "Never"], "DROVER_HOLDER_PULL_POLICY must be Always, IfNotPresent or Never")
    .default("IfNotPresent"),
  DROVER_CLAIM_PRIORITY_CLASS: given("DROVER_CLAIM_PRIORITY_CLASS").default("drover-claim"),
  DROVER_MIGRATION: z.string().default("{}"),
  DROVER_RUNTIME_UPDATE: z.string().default("{}"),
  DROVER_CERTIFICATES_DIR: z.string().default(""),
  DROVER_CERTIFICATES_DAYS: z.coerce
    .number("DROVER_CERTIFICATES_DAYS must be a number of days such as 14")
    .min(1, "DROVER_CERTIFICATES_DAYS must be at least 1")
    .max(365, "DROVER_CERTIFICATES_DAYS must be at most 365")
    .default(14),
});

export interface OperatorEnv {
  /** Who this process is, in its Lease and its events. */
  identity: string;
  namespace: string;
  httpPort: number;
  claims: ClaimSettings;
  migration: MigrationSettings;
  updates: RuntimeUpdateSettings;
  /** Undefined where there is no authority to sign with. */
  certificates: CertificateSettings | undefined;
}

const DAY_MS = 24 * 3600_000;

/** Reads the environment. Throws one error that names every variable that is missing or wrong, and what it should be. */
export function operatorEnv(env: Record<string, string | undefined>): OperatorEnv {
  const parsed = schema.safeParse(env);
  if (!parsed.success) {
    const complaints = parsed.error.issues.map(({ message }) => message).join("; ");
    throw new Error(`the operator's environment is wrong: ${complaints}`, { cause: parsed.error });
  }
  const { data } = parsed;
  return {
    identity: data.POD_NAME,
    namespace: data.POD_NAMESPACE,
    httpPort: data.DROVER_HTTP_PORT,
    claims: {
      holderImage: data.DROVER_HOLDER_IMAGE,
      holderPullPolicy: data.DROVER_HOLDER_PULL_POLICY,
      cpuOvercommit: data.DROVER_CPU_OVERCOMMIT,
      priorityClassName: data.DROVER_CLAIM_PRIORITY_CLASS,
    },
    migration: migrationSettings(data.DROVER_MIGRATION),
    updates: runtimeUpdateSettings(data.DROVER_RUNTIME_UPDATE),
    certificates:
      data.DROVER_CERTIFICATES_DIR === ""
        ? undefined
        : {
            directory: data.DROVER_CERTIFICATES_DIR,
            validMs: data.DROVER_CERTIFICATES_DAYS * DAY_MS,
            namespace: data.POD_NAMESPACE,
          },
  };
}
