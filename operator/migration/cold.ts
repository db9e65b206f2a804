/** What is different about a move of an instance that does not run: its disks go, and nobody's guest with them. Pure. */
import type { Instance } from "../../crds/instance.ts";
import type { Migration } from "../../crds/migration.ts";
import type { NodeSeen } from "../instance/facts.ts";
import { fail, OK, RECOVER_MS, wait, type Check } from "./check.ts";

export const isCold = ({ spec }: Pick<Migration, "spec">): boolean => spec.mode === "Cold";

/** Whether its disks can be moved now: nothing of it runs, nor is about to. */
export function checkStopped({ metadata: { name }, spec, status }: Instance, source: NodeSeen): Check {
  if (spec.power !== "Stopped") {
    const how = "stop it (spec.power: Stopped) and make the Migration again, or use mode: Live";
    return fail("InstanceNotStopped", `mode Cold moves the disks of a stopped instance, and ${name} is not stopped; ${how}`);
  }
  const { claim, nodeName, phase = "Pending" } = status ?? {};
  if (nodeName === undefined)
    return fail(
      "NoDisksYet",
      `instance ${name} has no disks yet, for it was never started; it starts on whichever node it is sent to`,
    );
  if (claim?.uid !== undefined || phase !== "Stopped")
    return wait("InstanceNotStopped", `waits until instance ${name} has stopped; it is ${phase}`, RECOVER_MS);
  if (source.state === "Gone") return fail("NodeGone", `node ${nodeName} is no longer in the cluster, and the disks with it`);
  if (source.state !== "Answering") return wait(source.reason, `the disks cannot be moved now: ${source.message}`, RECOVER_MS);
  return OK;
}
