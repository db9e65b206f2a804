/** The condition RuntimeCurrent of an instance: whether its QEMU is the one that its node would start now. Pure. */
import type { HostRuntime } from "../../crds/host.ts";
import type { GuestStatus } from "../../crds/instance.ts";
import type { Condition } from "../../crds/schema.ts";
import { isMoving, type ActiveMove } from "../migration/active.ts";
import { runtimeText, updateProblem } from "../migration/in-place/runtimes.ts";

type Verdict = Pick<Condition, "status" | "reason" | "message">;

export interface RuntimeFacts {
  /** What its agent says of the guest in the present claim; undefined: nothing, or it does not run. */
  guest: GuestStatus | undefined;
  node: string | undefined;
  /** The runtime that instances get which start on its node now. */
  current: Pick<HostRuntime, "version" | "qemuVersion" | "machineTypes"> | undefined;
  move: ActiveMove | undefined;
}

const unknown = (reason: string, message: string): Verdict => ({ status: "Unknown", reason, message });

/** What it says, with both versions and the way out. */
export function runtimeCurrent({ guest, node = "", current, move }: RuntimeFacts): Verdict {
  if (guest?.state !== "Running") return unknown("NotRunning", "known when it runs");
  const { runtimeVersion, qemuVersion } = guest;
  if (runtimeVersion === undefined)
    return unknown("RuntimeUnknown", `the agent of node ${node} has not said which runtime its guest runs in`);
  if (current === undefined)
    return unknown("RuntimesUnknown", `the agent of node ${node} has not said which runtime is current there`);
  const has = `its guest runs in ${runtimeText(runtimeVersion, qemuVersion)}`;
  if (runtimeVersion === current.version)
    return { status: "True", reason: "Current", message: `${has}, the current one of node ${node}` };
  const differs = `${has}, and the current one of node ${node} is ${runtimeText(current.version, current.qemuVersion)}`;
  const no = (reason: string, message: string): Verdict => ({ status: "False", reason, message: `${differs}; ${message}` });
  // Until its agent says what it runs in now.
  if (move?.inPlace === true && (isMoving(move) || move.state === "Done"))
    return no("Updating", `its QEMU is being replaced by the Migration ${move.name}`);
  const problem = updateProblem(guest, current);
  if (problem !== undefined) return no("UpdateBlocked", problem.message);
  return no("Outdated", "a Migration with mode: InPlace replaces its QEMU while it runs");
}
