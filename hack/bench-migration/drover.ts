/** The same guest moved by Drover: a Migration, as a user makes it. */
import { readFile } from "node:fs/promises";
import type { Instance } from "../../crds/instance.ts";
import type { Migration } from "../../crds/migration.ts";
import { migrations } from "../../crds/resources.ts";
import { Informer, KubeClient } from "../../kube/index.ts";
import { NAMESPACE } from "../bench/world.ts";
import { instance } from "../kit/guest.ts";
import { inNode, lab } from "../lab/index.ts";
import type { Moved, Mover, Step } from "./mover.ts";
import { readTraces } from "./traces.ts";

const MOVE_MS = 300_000;
const TRACES = "/var/lib/drover/bench-traces";

/** Migrations as a watch shows them. */
export interface MoveWatch {
  client: KubeClient;
  /** Calls back with each state of one; returns how to stop. */
  on(name: string, fn: (now: Migration) => void): () => void;
  close(): Promise<void>;
}

export const watchMoves = async (): Promise<MoveWatch> => {
  const client = KubeClient.fromKubeconfig(await readFile(lab().kubeconfig, "utf8"), { userAgent: "drover-bench" });
  const ending = new AbortController();
  const informer = new Informer(client, migrations, { namespace: NAMESPACE });
  const listeners = new Map<string, (now: Migration) => void>();
  informer.onChange(({ key, now }) => {
    if (now) listeners.get(key.name)?.(now);
  });
  informer.start(ending.signal);
  await informer.synced;
  return {
    client,
    on: (name, fn) => {
      listeners.set(name, fn);
      return () => listeners.delete(name);
    },
    close: async () => {
      ending.abort();
      await informer.stopped();
    },
  };
};

let serial = 0;

/** Steps that a Migration has behind it, by what it shows. */
const reached = ({ status }: Migration): Step[] => {
  const { phase, handover, source, target, targetNode } = status ?? {};
  const copying = source?.state === "CopyingMemory" || handover?.state === "Handover";
  const steps: [Step, boolean][] = [
    ["accepted", targetNode !== undefined],
    ["preparing", target !== undefined],
    ["ready", target?.state === "Ready"],
    ["disks-ready", copying],
    ["switchover", handover?.state === "Handover"],
    ["runs", handover?.state === "Done"],
    ["released", source?.state === "Released"],
    ["over", phase === "Succeeded"],
  ];
  return steps.filter(([, is]) => is).map(([step]) => step);
};

export class DroverGuest implements Mover {
  readonly way = "drover";
  readonly address: string;
  readonly #watch: MoveWatch;
  readonly #tls: boolean;
  #now: Instance;

  constructor(of: Instance, watch: MoveWatch, tls: boolean) {
    const { ip } = of.status ?? {};
    if (ip === undefined) throw new Error(`${of.metadata.name} does not run: ${JSON.stringify(of.status)}`);
    this.address = ip;
    this.#watch = watch;
    this.#tls = tls;
    this.#now = of;
  }

  get node(): string {
    return this.#now.status?.nodeName ?? "";
  }

  async move(to: string, onSwitchover: () => void = () => undefined): Promise<Moved> {
    const instanceName = this.#now.metadata.name;
    const name = `bench-${process.pid}-${++serial}`;
    await this.#keepTraces();
    const { promise, resolve, reject } = Promise.withResolvers<Migration>();
    let last: Migration | undefined;
    let begun = performance.now();
    const course = new Map<Step, number>();
    const stop = this.#watch.on(name, (now) => {
      last = now;
      for (const mark of reached(now)) if (!course.has(mark)) course.set(mark, performance.now() - begun);
      const { phase, handover } = now.status ?? {};
      if (handover?.state === "Handover") onSwitchover();
      if (phase === "Succeeded" || phase === "Failed" || phase === "Cancelled") resolve(now);
    });
    const late = setTimeout(() => reject(new Error(`no end within ${MOVE_MS / 1000} s`)), MOVE_MS);
    try {
      const metadata = { name, namespace: NAMESPACE };
      const spec = { instance: instanceName, target: { node: to }, mode: "Live" as const };
      begun = performance.now();
      await this.#watch.client.apply(
        migrations,
        { apiVersion: "drover.dev/v1alpha1", kind: "Migration", metadata, spec },
        { manager: "bench" },
      );
      const end = await promise;
      const totalMs = performance.now() - begun;
      this.#check(end);
      this.#now = await instance(NAMESPACE, instanceName);
      const timeline = end.status?.source?.timeline;
      const steps = [...course].map(([mark, ms]) => ({ mark, ms }));
      return { totalMs, course: steps, ...(timeline === undefined ? {} : { timeline }) };
    } catch (cause) {
      throw new Error(`Migration ${name} of ${instanceName} to ${to}: ${JSON.stringify(last?.status)}`, { cause });
    } finally {
      clearTimeout(late);
      stop();
    }
  }

  async traces(): Promise<string[]> {
    await this.#keepTraces();
    return readTraces(`${TRACES}/${this.#now.metadata.uid}.*`);
  }

  async remove(): Promise<void> {
    for (const { name } of lab().nodes) await inNode(name, "sh", ["-c", 'rm -f "$1/$0".*', this.#now.metadata.uid, TRACES]);
  }

  #check({ status }: Migration): void {
    if (status?.phase !== "Succeeded") throw new Error("it did not succeed");
    if (status.policy?.tls !== this.#tls)
      throw new Error(`the chart's migration.tls is ${status.policy?.tls}, but TLS with TLS is to be compared (TLS=0: without)`);
  }

  /** Every stderr log of its QEMUs gets a second name, which outlives the instance's directory. */
  async #keepTraces(): Promise<void> {
    const script =
      'mkdir -p "$1"; for f in /var/lib/drover/instances/"$0"/stderr*.log; do [ -e "$f" ] && ln -f "$f" "$1/$0.$(stat -c %i "$f")"; done; true';
    for (const { name } of lab().nodes) await inNode(name, "sh", ["-c", script, this.#now.metadata.uid, TRACES]);
  }
}
