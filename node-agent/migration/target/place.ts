/** What must be there before the guest itself may come: copying can begin without it. */
import type { Migration } from "../../../crds/migration.ts";
import { tapName } from "../../../crds/names.ts";
import type { Pod } from "../../../kube/index.ts";
import { claimState } from "../../claim/state.ts";
import type { Nics } from "../../nic/index.ts";
import type { MoveNote } from "../notes.ts";

/** Until OVN has installed the guest's ports on this node, ms. */
const INSTALLED_MS = 60_000;
/** An image is pulled, a sandbox is made. */
const HOLDER_MS = 5 * 60_000;

/** Something that is waited for; if it has not come after so long, the target gives up with `late`. */
export interface Missing {
  reason: string;
  message: string;
  forMs: number;
  late: string;
}

/** Undefined: nothing is missing. `pods`: the claims of this node. Looks only; to be asked again whenever one of them changes. */
export function missingOf(
  { instance, nics: names }: MoveNote,
  migration: Migration,
  { nics, pods }: { nics: Pick<Nics, "installed">; pods: readonly Pod[] },
): Missing | undefined {
  const ports = names.filter((name) => !nics.installed(tapName(instance.uid, name))).join(", ");
  if (ports !== "")
    return {
      reason: "NetworkNotInstalled",
      message: `waiting for OVN to install ${ports} on this node`,
      forMs: INSTALLED_MS,
      late: `OVN has not installed ${ports} on this node within ${INSTALLED_MS / 1_000} s; look at ovn-controller on this node, and at ovn-central`,
    };
  // Until its holder runs no PodDisruptionBudget protects the guest.
  const { uid = "", name = "" } = migration.status?.targetClaim ?? {};
  const pod = pods.find(({ metadata }) => metadata.uid === uid);
  if (pod !== undefined && holderRuns(pod)) return undefined;
  return {
    reason: "HolderStarting",
    message: `the holder of its claim ${name} on this node is being started`,
    forMs: HOLDER_MS,
    late: `the holder of its claim ${name} on this node does not run after ${HOLDER_MS / 60_000} minutes; look at that pod's events`,
  };
}

const holderRuns = ({ status }: Pod): boolean =>
  status?.phase === "Running" && (status.containerStatuses ?? []).every(({ ready }) => ready);

/** Why the claim cannot be relied on any more; undefined: it can, or nobody knows yet. */
export function claimTrouble(migration: Migration, pods: readonly Pod[]): string | undefined {
  const { uid, name = "" } = migration.status?.targetClaim ?? {};
  const pod = pods.find(({ metadata }) => metadata.uid === uid);
  // Not to have it in the cache proves nothing: it may be on its way.
  if (uid === undefined || pod === undefined) return undefined;
  const { state } = claimState(pod, uid);
  if (state === "alive") return undefined;
  return `its claim ${name} on this node ${state === "deleting" ? "is being deleted" : "has ended"}`;
}
