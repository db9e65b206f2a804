/** For this room's tests: objects complete and valid, and a cache that is told what is in it. */
import { API_VERSION } from "../../crds/names.ts";
import type { Instance, InstanceStatus, NicSpec, NicStatus } from "../../crds/instance.ts";
import type { Network, NetworkSpec } from "../../crds/network.ts";
import { type Change, keyOf, keyText, type KubeObject, type ObjectKey } from "../../kube/index.ts";

let serial = 0;

const metadata = (name: string, uid: string, createdSecond: number) => {
  serial += 1;
  return {
    name,
    namespace: "team-a",
    uid,
    resourceVersion: String(serial),
    generation: 1,
    creationTimestamp: new Date(Date.UTC(2026, 0, 1) + createdSecond * 1000).toISOString(),
  };
};

export const networkFixture = (
  spec: Partial<NetworkSpec> = { ipv4: { cidr: "10.10.0.0/24", dhcp: true } },
  name = "blue",
): Network => ({
  apiVersion: API_VERSION,
  kind: "Network",
  metadata: metadata(name, `${name}000-0000-4000-8000-000000000000`, 0),
  spec,
});

export interface InstanceOptions {
  /** Seconds after the first; decides who is older. */
  created?: number;
  nics?: NicSpec[];
  given?: NicStatus[];
  status?: InstanceStatus;
}

export const instanceOn = (
  name: string,
  { created = 1, nics = [{ name: "eth0", network: "blue" }], given, status }: InstanceOptions = {},
): Instance => ({
  apiVersion: API_VERSION,
  kind: "Instance",
  metadata: metadata(name, `${name.padEnd(8, "0")}-1111-4111-8111-111111111111`, created),
  spec: {
    type: "VirtualMachine",
    power: "Running",
    restart: "OnFailure",
    onDrain: "LiveMigrate",
    image: {},
    cpu: 1,
    memory: "256Mi",
    rootDisk: { pool: "local", size: "1Gi" },
    nics,
  },
  ...(given || status ? { status: { ...status, ...(given ? { nics: given } : {}) } } : {}),
});

/** As much of an informer as this room reads. */
export class FakeCache<T extends KubeObject> {
  hasSynced = true;
  readonly #objects = new Map<string, T>();
  readonly #handlers: ((change: Change<T>) => void)[] = [];

  get(key: ObjectKey): T | undefined {
    return this.#objects.get(keyText(key));
  }

  list(): T[] {
    return [...this.#objects.values()];
  }

  onChange(fn: (change: Change<T>) => void): () => void {
    this.#handlers.push(fn);
    return () => undefined;
  }

  put(now: T): T {
    const key = keyOf(now);
    const old = this.get(key);
    this.#objects.set(keyText(key), now);
    for (const fn of this.#handlers) fn({ key, now, ...(old ? { old } : {}) });
    return now;
  }

  remove(old: T): void {
    this.#objects.delete(keyText(keyOf(old)));
    for (const fn of this.#handlers) fn({ key: keyOf(old), old });
  }
}
