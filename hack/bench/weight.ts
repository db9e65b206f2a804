/** Cgroups for what is compared with Drover's guests: with the weight for the processors of one of their claims. */
import { dirname, join } from "node:path";
import type { Instance } from "../../crds/instance.ts";
import { inNode } from "../lab/index.ts";
import { accountOf } from "./memory.ts";

/** A cgroup's path below the root of whichever hierarchy it is named in. Pure. */
export const inHierarchy = (directory: string): string => directory.replace(/^\/sys\/fs\/cgroup\/((memory|cpu)\/)?/, "");

/**
 * The cgroup of all pods above a pod's. Pure. Kubelet gives each class of pods (burstable ...) the weight of the pods in it: another cgroup in
 * there would take from theirs, one beside the classes has its own, as a pod has.
 * @throws when there is none
 */
export function ofAllPods(pod: string): string {
  const parts = pod.split("/");
  const at = parts.findIndex((part) => part.startsWith("kubepods"));
  if (at === -1) throw new Error(`the cgroup ${pod} is no pod's`);
  return parts.slice(0, at + 1).join("/");
}

const READ = 'cat /sys/fs/cgroup/cpu/"$0"/cpu.shares 2>/dev/null || cat /sys/fs/cgroup/"$0"/cpu.weight';
const REMOVE = 'for d in /sys/fs/cgroup/cpu/"$0" /sys/fs/cgroup/"$0"; do [ ! -d "$d" ] || rmdir "$d"; done';
const script = join(import.meta.dirname, "weighed.sh");

/** A cgroup of any node, of the weight that the claim of a running instance has on its own. */
export class WeighedAs {
  readonly #group: string;
  readonly #weight: string;

  private constructor(group: string, weight: string) {
    this.#group = group;
    this.#weight = weight;
  }

  /** @param name of the cgroup; nobody else's */
  static async instance({ metadata, status }: Instance, name: string): Promise<WeighedAs> {
    const { nodeName, guest } = status ?? {};
    if (nodeName === undefined || guest?.claimUid === undefined) throw new Error(`${metadata.name} does not run`);
    const claim = inHierarchy(dirname(await accountOf(nodeName, guest.claimUid)));
    const weight = (await inNode(nodeName, "sh", ["-c", READ, claim])).trim();
    return new WeighedAs(join(ofAllPods(claim), name), weight);
  }

  /** A program and its arguments that becomes, in it, the command that it is given. */
  get by(): string[] {
    return ["sh", script, this.#group, this.#weight];
  }

  /** Once nothing runs in it. */
  async remove(node: string): Promise<void> {
    await inNode(node, "sh", ["-c", REMOVE, this.#group]);
  }
}
