/** Stands in for the kubelets and agents of all nodes. */
import type { GuestStatus, Instance } from "../../../crds/instance.ts";
import { AGENT_MANAGER } from "../../../crds/names.ts";
import { instances } from "../../../crds/resources.ts";
import { keyOf, keyText, resources, type KubeClient, type ObjectKey, type Pod } from "../../../kube/index.ts";
import type { Cluster } from "./cluster.ts";

const RESIZE = "PodResizePending";
const limitsOf = (all: readonly { name: string; resources?: { limits?: Record<string, string> } }[] = []): string | undefined =>
  all.find(({ name }) => name === "holder")?.resources?.limits?.["memory"];

/** Kubelet and agent of all nodes: claims run when bound, are resized and end when deleted, guests do as they are asked. */
export class NodeStandIn {
  readonly #client: KubeClient;
  readonly #cluster: Pick<Cluster, "client" | "seenInstances" | "seenPods">;
  readonly #busy = new Map<string, Promise<void>>();
  readonly #unwatch: (() => void)[] = [];
  /** Nodes that do nothing at present. */
  readonly silent = new Set<string>();
  /** No pod is given more than it has. */
  noMemory = false;
  /** Set to have guests fail, or anything else than run. */
  guestFor: (instance: Instance) => Partial<GuestStatus> = () => ({});
  /** Instances that a move's agents hold: nothing is started, stopped or said of them. */
  isHeld: (instance: Instance) => boolean = () => false;
  failures: unknown[] = [];

  constructor(cluster: Pick<Cluster, "client" | "seenInstances" | "seenPods">) {
    this.#cluster = cluster;
    this.#client = cluster.client;
    this.#unwatch.push(
      cluster.seenInstances.onChange(({ key }) => this.#queue(`i/${keyText(key)}`, () => this.#agent(key))),
      cluster.seenPods.onChange(({ key }) => this.#queue(`p/${keyText(key)}`, () => this.#kubelet(key))),
    );
  }

  /** Looks at everything again, as a node does that comes back. */
  lookAgain(): void {
    for (const one of this.#cluster.seenInstances.list()) this.#queue(`i/${keyText(keyOf(one))}`, () => this.#agent(keyOf(one)));
    for (const one of this.#cluster.seenPods.list()) this.#queue(`p/${keyText(keyOf(one))}`, () => this.#kubelet(keyOf(one)));
  }

  async stop(): Promise<void> {
    for (const unwatch of this.#unwatch) unwatch();
    await Promise.all(this.#busy.values());
  }

  #queue(key: string, act: () => Promise<void>): void {
    const before = this.#busy.get(key) ?? Promise.resolve();
    const next = before.then(act).catch((error: unknown) => void this.failures.push(error));
    this.#busy.set(key, next);
  }

  async #say(instance: Instance, guest: GuestStatus): Promise<void> {
    const { name, namespace, uid } = instance.metadata;
    const { apiVersion, kind } = instance;
    await this.#client.apply(
      instances,
      { apiVersion, kind, metadata: { name, namespace, uid }, status: { guest } },
      { manager: AGENT_MANAGER, subresource: "status" },
    );
  }

  async #agent(key: ObjectKey): Promise<void> {
    const instance = this.#cluster.seenInstances.get(key);
    const node = instance?.status?.nodeName;
    if (instance === undefined || node === undefined || this.silent.has(node) || this.isHeld(instance)) return;
    const { claim, guest, nics = [] } = instance.status ?? {};
    if (instance.metadata.deletionTimestamp !== undefined) {
      if (guest?.state !== "Released") await this.#say(instance, { state: "Released", claimUid: guest?.claimUid });
      return;
    }
    if (claim?.uid === undefined) return;
    const pod = this.#cluster.seenPods.get({ namespace: key.namespace, name: claim.name });
    const here = pod?.metadata.uid === claim.uid && pod.metadata.deletionTimestamp === undefined;
    const want = instance.spec.power === "Stopped" ? "Stopped" : here ? "Running" : "Failed";
    if (guest?.claimUid === claim.uid && guest.state === want) return;
    if (guest?.claimUid === claim.uid && guest.state === "Stopped" && want === "Failed") return;
    const machine = { accelerator: "TCG" as const, machineType: "pc-q35-10.0", cpuModel: "qemu64-v1", qemuVersion: "10.0.2" };
    const made = { image: { ready: true }, disks: { ready: true }, ...machine };
    const taps = nics.map(({ name }) => ({ name, tap: "d0", installed: want === "Running" }));
    await this.#say(instance, { state: want, claimUid: claim.uid, ...made, nics: taps, ...this.guestFor(instance) });
  }

  async #kubelet(key: ObjectKey): Promise<void> {
    const pod = this.#cluster.seenPods.get(key);
    const owner = pod?.metadata.ownerReferences?.[0]?.name;
    // The agent, too, watches claims.
    if (owner !== undefined)
      this.#queue(`i/${key.namespace}/${owner}`, () => this.#agent({ namespace: key.namespace, name: owner }));
    if (pod?.spec.nodeName === undefined || this.silent.has(pod.spec.nodeName)) return;
    const { uid } = pod.metadata;
    if (pod.metadata.deletionTimestamp !== undefined) {
      await this.#client.delete(resources.pods, key, { uid, gracePeriodSeconds: 0 });
      return;
    }
    const [wanted, given] = [limitsOf(pod.spec.containers), limitsOf(pod.status?.containerStatuses)];
    const runs = pod.status?.phase === "Running";
    const isRefused = pod.status?.conditions?.some(({ type }) => type === RESIZE) === true;
    const refuses = runs && wanted !== given && this.noMemory;
    if (runs && isRefused === refuses && (wanted === given || refuses)) return;
    const others = (pod.status?.conditions ?? []).filter(({ type }) => type !== RESIZE);
    const status = refuses
      ? {
          conditions: [
            ...others,
            { type: RESIZE, status: "True", reason: "Infeasible", message: "Node didn't have enough memory" },
          ],
        }
      : {
          phase: "Running",
          conditions: others,
          containerStatuses: [
            { name: "holder", ready: true, restartCount: 0, image: "h", imageID: "h", resources: { limits: { memory: wanted } } },
          ],
        };
    await this.#client.patchMerge<Pod>(resources.pods, key, { metadata: { uid }, status }, { subresource: "status" });
  }
}
