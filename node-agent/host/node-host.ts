/** What this node tells the cluster: its Host, its heartbeat, and the GiB of its pools on its Node. */
import type { Host, HostRuntime } from "../../crds/host.ts";
import type { Instance } from "../../crds/instance.ts";
import {
  backoffMs,
  resources,
  sleep,
  type Change,
  type Clock,
  type Informer,
  type KubeClient,
  type Logger,
  type Node,
} from "../../kube/index.ts";
import { errorText, UserError } from "../errors.ts";
import type { Pools } from "../pool/index.ts";
import type { Runtime } from "../runtimes.ts";
import { capacityPatch, elsewhereGib, poolCapacity, unclaimedGib } from "./capacity.ts";
import { heartbeat } from "./heartbeat.ts";
import { hostStatus, type HostFacts, type HostSeen } from "./status.ts";
import { HostWriter } from "./writer.ts";

export interface NodeHostOptions {
  client: Pick<KubeClient, "apply" | "patchJson" | "patchMerge" | "create">;
  nodeName: string;
  /** Drover's own namespace, where the heartbeat's Lease is. */
  namespace: string;
  /** The agent's pod. */
  identity: string;
  /** The kernel's name of this boot of the node. */
  bootId: string;
  /** Resolves when the agent has said what runs on its node, or ends: not before is it heard of. Never rejects. */
  looked: Promise<void>;
  clock: Clock;
  log: Logger;
  /** The own Node, the own Host, the instances with status.nodeName of this node. */
  nodes: Pick<Informer<Node>, "get" | "onChange" | "synced">;
  hosts: Pick<Informer<Host>, "get" | "onChange" | "synced">;
  instances: Pick<Informer<Instance>, "list" | "onChange" | "synced">;
  pools: Pick<Pools, "usage" | "measure" | "imagesBytes" | "sharedVolumes" | "onChange">;
  /** Names of all StoragePools there are; undefined while they are not known. */
  poolNames: () => readonly string[] | undefined;
  /** Finds out what guests can be run with; tried again until it succeeds. */
  probe: (signal: AbortSignal) => Promise<HostFacts>;
  ovsDatapath: () => HostSeen["ovsDatapath"];
  /** Runtimes on the node; undefined while they are not known. */
  runtimes?: () => readonly Runtime[] | undefined;
  /** Disks that instances left which vanished from the API; undefined while that is not known. */
  lostDisks?: () => readonly string[] | undefined;
}

/** How often the use of pools is looked at: nothing tells when a file system fills. */
const MEASURE_MS = 30_000;
/** Changes that come together are looked at together. */
const GATHER_MS = 100;
const PROBE_RETRY_MS = 5_000;
const PROBE_RETRY_LONGEST_MS = 120_000;

export class NodeHost {
  readonly #options: NodeHostOptions;
  readonly #writer: HostWriter;
  #timer: ReturnType<Clock["setTimeout"]> | undefined;
  #telling: Promise<void> | undefined;
  #again = false;
  #failures = 0;
  #stopped = false;
  #facts: HostFacts | undefined;
  #trouble: { reason: string; message: string } | undefined;
  readonly #firstProbe = Promise.withResolvers<void>();
  readonly #looked = new Set<string>();
  #settled = false;
  /** The Node as our own last patch left it, until the informer tells something newer. */
  #patched: Node | undefined;

  constructor(options: NodeHostOptions) {
    this.#options = options;
    const nodeUid = (): string | undefined => this.#node?.metadata.uid;
    this.#writer = new HostWriter({ ...options, nodeUid });
  }

  /** What guests can be run with, waiting for a probe under way. Throws UserError with the reason of the last one that failed. */
  async facts(): Promise<HostFacts> {
    if (this.#facts === undefined && this.#trouble === undefined) await this.#firstProbe.promise;
    if (this.#facts !== undefined) return this.#facts;
    throw new UserError(
      this.#trouble?.reason ?? "Probing",
      this.#trouble?.message ?? "the agent is finding out what the node can do",
    );
  }

  /** The same, as far as it is known. */
  get knownFacts(): HostFacts | undefined {
    return this.#facts;
  }

  /** A pool was made, mended, or found not to belong here. Pools that were not looked at yet are told of as before. */
  poolLooked(name: string): void {
    this.#looked.add(name);
    this.changed();
  }

  /** Something that the node tells of changed, such as the facts: it is looked at anew, soon. */
  changed(): void {
    if (this.#stopped) return;
    if (this.#telling !== undefined) this.#again = true;
    else this.#timer ??= this.#options.clock.setTimeout(() => this.#start(), GATHER_MS);
  }

  /** Tells, whenever something changes, until the signal aborts. Never throws. */
  async run(signal: AbortSignal): Promise<void> {
    const { clock, nodes, hosts, instances, pools, nodeName } = this.#options;
    const probing = this.#probe(signal);
    await Promise.race([Promise.all([nodes.synced, hosts.synced, instances.synced]), aborted(signal)]);
    if (signal.aborted) return probing;
    this.#writer.seen(hosts.get({ name: nodeName }));
    const unsubscribe = [
      nodes.onChange(({ key }) => {
        if (key.name !== nodeName) return;
        this.#patched = undefined;
        this.changed();
      }),
      hosts.onChange(({ key, now }) => {
        if (key.name === nodeName) this.#writer.seen(now);
      }),
      instances.onChange(() => this.changed()),
      pools.onChange(() => this.changed()),
    ];
    const onNodeReady = (fn: () => void) => nodes.onChange((change) => void (becameReady(change) && fn()));
    const beating = heartbeat({ ...this.#options, nodeUid: () => this.#node?.metadata.uid, onNodeReady }, signal);
    this.changed();
    while (!signal.aborted) {
      await sleep(clock, MEASURE_MS, signal);
      if (!signal.aborted) await this.#measure();
    }
    this.#stopped = true;
    for (const off of unsubscribe) off();
    clock.clearTimeout(this.#timer);
    await Promise.all([beating, probing, this.#telling, this.#writer.close()]);
  }

  get #node(): Node | undefined {
    return this.#patched ?? this.#options.nodes.get({ name: this.#options.nodeName });
  }

  async #probe(signal: AbortSignal): Promise<void> {
    const { clock, log, probe } = this.#options;
    for (let failures = 0; this.#facts === undefined && !signal.aborted; ) {
      try {
        this.#facts = await probe(signal);
        this.#trouble = undefined;
        log.info({ facts: this.#facts }, "what guests can be run with is known");
      } catch (error) {
        if (signal.aborted) break;
        failures += 1;
        this.#trouble = { reason: error instanceof UserError ? error.reason : "ProbeFailed", message: errorText(error) };
        log.warn({ ...this.#trouble }, "the probe failed");
      }
      this.#firstProbe.resolve();
      this.changed();
      if (this.#facts === undefined) {
        await sleep(clock, backoffMs(failures, { baseMs: PROBE_RETRY_MS, capMs: PROBE_RETRY_LONGEST_MS }), signal);
      }
    }
    this.#firstProbe.resolve();
  }

  /** Whether every StoragePool was looked at since the agent started; from then on what is not there is gone. */
  #poolsSettled(): boolean {
    this.#settled ||= this.#options.poolNames()?.every((name) => this.#looked.has(name)) ?? false;
    return this.#settled;
  }

  async #measure(): Promise<void> {
    try {
      await this.#options.pools.measure();
      this.changed();
    } catch (error) {
      this.#options.log.warn({ error: errorText(error) }, "cannot measure the pools");
    }
  }

  #start(): void {
    this.#timer = undefined;
    this.#telling = this.#tell().finally(() => {
      this.#telling = undefined;
      const again = this.#again;
      this.#again = false;
      if (again) this.changed();
    });
  }

  async #tell(): Promise<void> {
    const { clock, instances, log, pools, ovsDatapath } = this.#options;
    const lost = this.#options.lostDisks?.();
    try {
      const all = instances.list();
      const running = all.filter(({ status }) => status?.guest?.state === "Running").length;
      const seen: HostSeen = {
        facts: this.#facts,
        trouble: this.#trouble,
        ovsDatapath: ovsDatapath(),
        ...(lost === undefined ? {} : { lostDisks: lost }),
        pools: pools.usage(),
        poolsSettled: this.#poolsSettled(),
        instances: running,
        runtimes: runtimesWith(this.#options.runtimes?.(), this.#facts?.runtimeVersion, all),
      };
      this.#writer.say(hostStatus(seen, this.#writer.said, new Date(clock.now())));
      await this.#advertise(all);
      this.#failures = 0;
    } catch (error) {
      this.#failures += 1;
      if (this.#failures === 1) log.warn({ error: errorText(error) }, "cannot advertise the pools on the Node");
      const wait = backoffMs(this.#failures, { baseMs: 1_000, capMs: 30_000 });
      if (!this.#stopped) this.#timer ??= clock.setTimeout(() => this.#start(), wait);
    }
  }

  /** The GiB of pools as extended resources of the own Node; written only when they differ. */
  async #advertise(instances: readonly Instance[]): Promise<void> {
    const { client, log, nodeName, pools } = this.#options;
    const have = this.#node?.status?.capacity;
    // A Node without capacity is one whose kubelet has not spoken yet.
    if (have === undefined) return;
    const unclaimed = unclaimedGib(instances, nodeName);
    const unclaimedIn = (pool: string): number => {
      const shared = pools.sharedVolumes(pool);
      return shared === undefined ? (unclaimed.get(pool) ?? 0) : elsewhereGib(shared, instances, nodeName);
    };
    const uses = await Promise.all(
      pools.usage().map(async (pool) => ({
        pool,
        imagesBytes: await pools.imagesBytes(pool.name),
        unclaimedGib: unclaimedIn(pool.name),
      })),
    );
    const patch = capacityPatch(have, poolCapacity(uses), this.#poolsSettled());
    if (patch.length === 0) return;
    this.#patched = await client.patchJson<Node>(resources.nodes, { name: nodeName }, patch, { subresource: "status" });
    log.info({ node: nodeName, patch }, "pools advertised");
  }
}

/** Those on the node, and those that something runs in although their files are gone, each with how many instances run in it. Pure. */
export function runtimesWith(
  runtimes: readonly Runtime[] | undefined,
  current: string | undefined,
  instances: readonly Instance[],
): HostRuntime[] | undefined {
  if (runtimes === undefined || current === undefined) return undefined;
  const counts = new Map<string, number>();
  for (const { status } of instances) {
    const version = status?.guest?.state === "Running" ? status.guest.runtimeVersion : undefined;
    if (version !== undefined) counts.set(version, (counts.get(version) ?? 0) + 1);
  }
  const gone = [...counts.keys()].filter((version) => !runtimes.some((one) => one.version === version));
  return [...runtimes, ...gone.map((version): Runtime => ({ version }))].map(({ version, qemuVersion, machineTypes }) => ({
    version,
    ...(qemuVersion === undefined ? {} : { qemuVersion }),
    ...(machineTypes === undefined ? {} : { machineTypes: [...machineTypes] }),
    current: version === current,
    instances: counts.get(version) ?? 0,
  }));
}

const readySince = (node: Node | undefined): string | undefined =>
  node?.status?.conditions?.find(({ type, status }) => type === "Ready" && status === "True")?.lastTransitionTime;

const becameReady = ({ old, now }: Change<Node>): boolean =>
  old !== undefined && readySince(now) !== undefined && readySince(now) !== readySince(old);

const aborted = (signal: AbortSignal): Promise<void> =>
  new Promise((resolve) => {
    if (signal.aborted) resolve();
    else signal.addEventListener("abort", () => resolve(), { once: true });
  });
