/** The same guest moved by Drover: a Migration, as a user makes it. */
import { readFile } from "node:fs/promises";
import type { Instance } from "../../crds/instance.ts";
import type { Migration } from "../../crds/migration.ts";
import { migrations } from "../../crds/resources.ts";
import { Informer, KubeClient } from "../../kube/index.ts";
import { NAMESPACE } from "../bench/world.ts";
import { keepLogs } from "../kit/kept-logs.ts";
import { inNode, lab } from "../lab/index.ts";
import type { Mark, Moved, Mover, Step } from "./mover.ts";
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

/** What a Migration came to; times in ms. */
interface CarriedOut {
  end: Migration;
  totalMs: number;
  course: Mark[];
}

/** Makes a Migration, and resolves when it has ended, however it did. Throws with what it shows when it does not end. */
export const carryOut = async (
  watch: MoveWatch,
  spec: Migration["spec"],
  onSwitchover: () => void = () => undefined,
): Promise<CarriedOut> => {
  const name = `bench-${process.pid}-${++serial}`;
  const { promise, resolve, reject } = Promise.withResolvers<Migration>();
  let last: Migration | undefined;
  let begun = performance.now();
  const course = new Map<Step, number>();
  const stop = watch.on(name, (now) => {
    last = now;
    for (const mark of reached(now)) if (!course.has(mark)) course.set(mark, performance.now() - begun);
    const { phase, handover } = now.status ?? {};
    if (handover?.state === "Handover") onSwitchover();
    if (phase === "Succeeded" || phase === "Failed" || phase === "Cancelled") resolve(now);
  });
  const late = setTimeout(() => reject(new Error(`no end within ${MOVE_MS / 1000} s`)), MOVE_MS);
  try {
    const metadata = { name, namespace: NAMESPACE };
    begun = performance.now();
    await watch.client.apply(
      migrations,
      { apiVersion: "drover.dev/v1alpha1", kind: "Migration", metadata, spec },
      { manager: "bench" },
    );
    const end = await promise;
    const totalMs = performance.now() - begun;
    if (end.status?.phase !== "Succeeded") throw new Error("it did not succeed");
    return { end, totalMs, course: [...course].map(([mark, ms]) => ({ mark, ms })) };
  } catch (cause) {
    throw new Error(`Migration ${name} ${JSON.stringify(spec)}: ${JSON.stringify(last?.status)}`, { cause });
  } finally {
    clearTimeout(late);
    stop();
  }
};

/** Traces of an instance's QEMUs, which outlive its directory. */
export class KeptTraces {
  readonly #uid: string;

  constructor(uid: string) {
    this.#uid = uid;
  }

  async keep(): Promise<void> {
    for (const { name } of lab().nodes) await keepLogs(name, this.#uid, TRACES, `${this.#uid}.`);
  }

  async read(): Promise<string[]> {
    await this.keep();
    return readTraces(`${TRACES}/${this.#uid}.*`);
  }

  async remove(): Promise<void> {
    for (const { name } of lab().nodes) await inNode(name, "sh", ["-c", 'rm -f "$1/$0".*', this.#uid, TRACES]);
  }
}

export class DroverGuest implements Mover {
  readonly way = "drover";
  readonly address: string;
  readonly #watch: MoveWatch;
  readonly #tls: boolean;
  readonly #traces: KeptTraces;
  readonly #name: string;
  #node: string;

  constructor(of: Instance, watch: MoveWatch, tls: boolean) {
    const { ip, nodeName } = of.status ?? {};
    if (ip === undefined || nodeName === undefined)
      throw new Error(`${of.metadata.name} does not run: ${JSON.stringify(of.status)}`);
    this.address = ip;
    this.#name = of.metadata.name;
    this.#node = nodeName;
    this.#watch = watch;
    this.#tls = tls;
    this.#traces = new KeptTraces(of.metadata.uid);
  }

  get node(): string {
    return this.#node;
  }

  prepare(): Promise<void> {
    return this.#traces.keep();
  }

  async move(to: string, onSwitchover: () => void = () => undefined): Promise<Moved> {
    const spec = { instance: this.#name, target: { node: to }, mode: "Live" as const };
    const { end, totalMs, course } = await carryOut(this.#watch, spec, onSwitchover);
    this.#check(end, to);
    this.#node = to;
    const timeline = end.status?.source?.timeline;
    return { totalMs, course, ...(timeline === undefined ? {} : { timeline }) };
  }

  traces(): Promise<string[]> {
    return this.#traces.read();
  }

  remove(): Promise<void> {
    return this.#traces.remove();
  }

  #check({ status }: Migration, to: string): void {
    if (status?.targetNode !== to) throw new Error(`it was to move to ${to}, and moved to ${status?.targetNode ?? "no node"}`);
    if (status?.policy?.tls !== this.#tls)
      throw new Error(`the chart's migration.tls is ${status?.policy?.tls}, but TLS with TLS is to be compared (TLS=0: without)`);
  }
}
