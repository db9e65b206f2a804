/** What both sides of a move work with. */
import type { Migration } from "../../crds/migration.ts";
import type { Clock, KubeClient, Logger, ObjectKey } from "../../kube/index.ts";
import { errorText, UserError } from "../errors.ts";
import type { NodeIdentity } from "../identity/identity.ts";
import type { InstanceDriver } from "../instance/driver.ts";
import type { MoveDriver } from "../instance/move.ts";
import type { Nics } from "../nic/index.ts";
import type { Pools } from "../pool/index.ts";
import type { Checkpoint } from "./checkpoint.ts";
import type { MoveMetrics } from "./metrics.ts";
import type { MoveNotes, Why } from "./notes.ts";
import type { Records } from "./records.ts";
import type { MoveReporter } from "./report.ts";

export interface SideParts {
  client: Pick<KubeClient, "get" | "patchJson">;
  driver: Pick<InstanceDriver, "prepare" | "stop" | "forget" | "pingGuestAgent">;
  moves: MoveDriver;
  pools: Pick<Pools, "ensureVolume" | "removeVolume" | "place">;
  nics: Pick<Nics, "ensure" | "removeAll" | "installed" | "onChange">;
  notes: MoveNotes;
  records: Records;
  reporter: MoveReporter;
  identity: NodeIdentity;
  checkpoint: Checkpoint;
  metrics: MoveMetrics;
  clock: Clock;
  log: Logger;
}

export type MigrationRef = ObjectKey & { uid: string };

export const refOf = ({ metadata: { namespace, name, uid } }: Migration): MigrationRef =>
  namespace === undefined ? { name, uid } : { namespace, name, uid };

/** Something that ends an attempt. */
export class GiveUp extends Error {
  readonly why: Why;

  constructor(why: Why, options?: ErrorOptions) {
    super(why.message, options);
    this.why = why;
  }
}

/** What was thrown as words; what a user can mend keeps its reason. What nobody foresaw may pass. */
export function whyOf(error: unknown, reason: string): Why {
  if (error instanceof GiveUp) return error.why;
  return {
    reason: error instanceof UserError ? error.reason : reason,
    message: errorText(error),
    retryable: !LASTING.has(error instanceof UserError ? error.reason : ""),
  };
}

/** What does not pass by itself. */
const LASTING = new Set([
  "AcceleratorDiffers",
  "MachineTypeUnknown",
  "CpuModelMissing",
  "QEMUTooOld",
  "DeviceCannotMove",
  "SharedDiskMissing",
  "NoRoomInClaim",
  "InstanceRuns",
]);
