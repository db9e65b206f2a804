/** The bench's own objects in the lab, and a watch on them. */
import { readFile } from "node:fs/promises";
import type { Instance } from "../../crds/instance.ts";
import { instances } from "../../crds/resources.ts";
import { Informer, KubeClient } from "../../kube/index.ts";
import {
  apply,
  images,
  kubectl,
  namespaceManifest,
  networkManifest,
  poolManifest,
  virtualMachine,
  waitFor,
} from "../kit/cluster.ts";
import { lab } from "../lab/index.ts";

export const NAMESPACE = "bench";
export const POOL = "bench";
export const NETWORK = "net";
/** Where guests run whose start is measured: one node, whose pool has the image. */
export const NODE = "n1";
/** Where an observer stands. */
export const OTHER_NODE = "n3";

const AT_ONCE = 20;

export interface Seen {
  at: number;
  now: Instance;
}

export interface World {
  client: KubeClient;
  /** Makes an instance; gives the moment right before the request. */
  create(name: string, spec?: object): Promise<number>;
  createMany(names: readonly string[], spec?: object): Promise<number>;
  /** Resolves with the moment and the object when a watch first shows what is wanted. Counts from the past too. */
  until(name: string, wanted: (now: Instance) => boolean, seconds?: number): Promise<Seen>;
  /** Everything that the watch has shown of an instance. */
  history(name: string): readonly Seen[];
  delete(names: readonly string[]): Promise<void>;
  close(): Promise<void>;
}

export const isRunning = ({ status }: Instance): boolean => status?.guest?.state === "Running";
export const isReady = ({ status }: Instance): boolean =>
  status?.conditions?.some(({ type, status: is }) => type === "Ready" && is === "True") ?? false;

export const makeWorld = async (): Promise<World> => {
  const { tiny } = await images();
  await apply(namespaceManifest(NAMESPACE), poolManifest(POOL, "32Gi"));
  await apply(networkManifest(NAMESPACE, NETWORK, { ipv4: { cidr: "10.77.0.0/16" } }));
  await waitFor(`dpool/${POOL}`, "condition=Ready");
  await waitFor(`dnet/${NETWORK}`, "condition=Ready", 60, NAMESPACE);
  const client = KubeClient.fromKubeconfig(await readFile(lab().kubeconfig, "utf8"), { userAgent: "drover-bench" });
  const ending = new AbortController();
  const informer = new Informer(client, instances, { namespace: NAMESPACE });
  const histories = new Map<string, Seen[]>();
  const waiting = new Set<() => void>();
  informer.onChange(({ key, now }) => {
    const past = histories.get(key.name) ?? [];
    if (now) histories.set(key.name, [...past, { at: performance.now(), now }]);
    else histories.delete(key.name);
    for (const look of waiting) look();
  });
  informer.start(ending.signal);
  await informer.synced;

  const create = async (name: string, spec: object = {}): Promise<number> => {
    const object = virtualMachine(NAMESPACE, name, { image: tiny, node: NODE, network: NETWORK, pool: POOL, spec });
    const at = performance.now();
    await client.apply(instances, object as unknown as Instance, { manager: "bench" });
    return at;
  };
  const when = <T>(look: () => T | undefined, seconds: number, what: string): Promise<T> =>
    new Promise((resolve, reject) => {
      const check = (): void => {
        const found = look();
        if (found === undefined) return;
        clearTimeout(timer);
        waiting.delete(check);
        resolve(found);
      };
      const timer = setTimeout(() => {
        waiting.delete(check);
        reject(new Error(`${what}: not within ${seconds} s`));
      }, seconds * 1000);
      waiting.add(check);
      check();
    });
  return {
    client,
    create,
    createMany: async (names, spec) => {
      const begun = performance.now();
      for (let at = 0; at < names.length; at += AT_ONCE)
        await Promise.all(names.slice(at, at + AT_ONCE).map((name) => create(name, spec)));
      return begun;
    },
    until: (name, wanted, seconds = 120) =>
      when(() => histories.get(name)?.find(({ now }) => wanted(now)), seconds, `instance ${name} as wanted`),
    history: (name) => histories.get(name) ?? [],
    delete: async (names) => {
      for (let at = 0; at < names.length; at += AT_ONCE)
        await Promise.all(names.slice(at, at + AT_ONCE).map((name) => client.delete(instances, { namespace: NAMESPACE, name })));
      await when(() => (names.some((name) => histories.has(name)) ? undefined : true), 300, "instances are deleted");
    },
    close: async () => {
      ending.abort();
      await informer.stopped();
    },
  };
};

/** Takes away all that a bench made, also one that was killed. */
export const removeWorld = async (): Promise<void> => {
  const there = await kubectl(["get", "namespace", NAMESPACE, "--ignore-not-found", "-o", "name"]);
  if (there !== "") {
    await kubectl(["-n", NAMESPACE, "delete", "instances", "--all", "--timeout=300s"], { seconds: 310 });
    await kubectl(["-n", NAMESPACE, "delete", "dnet", "--all", "--timeout=60s"], { seconds: 70 });
    await kubectl(["delete", "namespace", NAMESPACE, "--timeout=120s"], { seconds: 130 });
  }
  await kubectl(["delete", `dpool/${POOL}`, "--ignore-not-found", "--timeout=120s"], { seconds: 130 });
};
