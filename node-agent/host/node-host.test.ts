import { describe, expect, it } from "vitest";
import type { HostPool, HostStatus } from "../../crds/host.ts";
import type { Instance } from "../../crds/instance.ts";
import { BOOT_ID } from "../../crds/names.ts";
import { ApiError, FakeClock, silentLogger, type KubeClient, type Lease, type Node } from "../../kube/index.ts";
import { UserError } from "../errors.ts";
import { NodeHost } from "./node-host.ts";
import type { HostFacts } from "./status.ts";

const GIB = 1024 ** 3;
const facts: HostFacts = { accelerator: "TCG", qemuVersion: "10", runtimeVersion: "1", machineTypes: [], cpuModel: "m" };

class Source<T> {
  synced = Promise.resolve();
  #listeners = new Set<(change: never) => void>();
  items: T[];
  constructor(items: T[]) {
    this.items = items;
  }
  get = (): T | undefined => this.items[0];
  list = (): T[] => this.items;
  onChange = (fn: (change: never) => void): (() => void) => {
    this.#listeners.add(fn);
    return () => {
      this.#listeners.delete(fn);
    };
  };
  tell(name: string, now?: T, old?: T): void {
    for (const fn of this.#listeners) fn({ key: { name }, now, old } as never);
  }
}

function bench(
  options: {
    capacity?: Record<string, string>;
    host?: HostStatus;
    poolNames?: string[];
    probe?: () => Promise<HostFacts>;
    looked?: Promise<void>;
  } = {},
) {
  const clock = new FakeClock();
  const calls: string[] = [];
  const node: Node = {
    apiVersion: "v1",
    kind: "Node",
    metadata: { name: "n1", uid: "u" },
    spec: {},
    status: { capacity: options.capacity ?? {} },
  };
  const nodes = new Source([node]);
  const hosts = new Source(options.host ? [{ metadata: { name: "n1" }, status: options.host }] : []);
  const instances = new Source<Instance>([]);
  let lease = false;
  const client = {
    apply: async (_: unknown, object: { status?: HostStatus }) => {
      calls.push(object.status ? `status ${object.status.poolNames}` : "host");
      return object;
    },
    patchJson: async (_: unknown, __: unknown, ops: { op: string; path: string; value?: string }[]) => {
      const capacity = { ...node.status?.capacity };
      for (const { op, path, value } of ops) {
        const key = path.replace("/status/capacity/", "").replace("~1", "/");
        calls.push(`${op} ${key}=${value}`);
        if (op === "remove") delete capacity[key];
        else capacity[key] = value ?? "";
      }
      return { ...node, status: { capacity } };
    },
    patchMerge: async () => {
      if (!lease) throw new ApiError(404, "NotFound", "none");
      calls.push("beat");
      return {};
    },
    create: async (_: unknown, object: Lease) => {
      lease = true;
      expect(object.metadata.annotations).toEqual({ [BOOT_ID]: "boot-1" });
      calls.push("lease");
      return {};
    },
  } as unknown as KubeClient;
  const usage: HostPool[] = [];
  const host = new NodeHost({
    client,
    nodeName: "n1",
    namespace: "drover",
    identity: "agent-x",
    bootId: "boot-1",
    looked: options.looked ?? Promise.resolve(),
    clock,
    log: silentLogger,
    nodes,
    hosts: hosts as never,
    instances,
    pools: {
      usage: () => usage,
      measure: async () => usage,
      imagesBytes: async () => 5,
      sharedVolumes: () => undefined,
      onChange: () => () => undefined,
    },
    poolNames: () => options.poolNames ?? [],
    probe: options.probe ?? (async () => facts),
    ovsDatapath: () => "userspace",
  });
  const stop = new AbortController();
  const running = host.run(stop.signal);
  const end = async (): Promise<void> => {
    stop.abort();
    await running;
  };
  return { clock, calls, host, usage, nodes, instances, end };
}

const local: HostPool = { name: "local", ready: true, sizeBytes: 8 * GIB, usedBytes: 0 };

describe("NodeHost", () => {
  it("tells of the node, advertises its pools, and is then quiet but for its heartbeat", async () => {
    const { clock, calls, host, usage, end } = bench({ poolNames: ["local"] });
    usage.push(local);
    host.poolLooked("local");
    await clock.advance(1_000);
    expect(calls.toSorted()).toEqual(["add drover.dev/pool.local=7", "host", "lease", "status local"]);
    await clock.advance(20 * 60_000);
    expect(calls.filter((call) => call !== "beat").length).toBe(4);
    expect(calls.filter((call) => call === "beat").length).toBe(60);
    await end();
  });

  it("is heard of only once it has said what runs there, and at once when its node becomes ready", async () => {
    const { promise: looked, resolve } = Promise.withResolvers<void>();
    const { clock, calls, nodes, end } = bench({ looked });
    const beats = () => calls.filter((call) => call === "lease" || call === "beat").length;
    const ready = (status: string, lastTransitionTime: string) =>
      ({ ...nodes.items[0], status: { conditions: [{ type: "Ready", status, lastTransitionTime }] } }) as Node;
    await clock.advance(25_000);
    expect(beats()).toBe(0);
    resolve();
    await clock.advance(1_000);
    expect(beats()).toBe(1);
    nodes.tell("n1", ready("Unknown", "t2"), ready("True", "t1"));
    nodes.tell("n1", ready("True", "t1"), ready("True", "t1"));
    await clock.advance(0);
    expect(beats()).toBe(1);
    nodes.tell("n1", ready("True", "t3"), ready("Unknown", "t2"));
    await clock.advance(0);
    expect(beats()).toBe(2);
    await clock.advance(19_000);
    expect(beats()).toBe(2);
    await clock.advance(1_000);
    expect(beats()).toBe(3);
    await end();
    expect(clock.pending).toBe(0);
  });

  it("counts disks without a claim, and advertises again what the kubelet forgot", async () => {
    const { clock, calls, host, usage, nodes, instances, end } = bench({ poolNames: ["local"] });
    usage.push(local);
    host.poolLooked("local");
    await clock.advance(1_000);
    instances.items = [{ spec: { rootDisk: { pool: "local", size: "2Gi" } }, status: { nodeName: "n1" } } as Instance];
    instances.tell("a");
    await clock.advance(1_000);
    nodes.tell("n1");
    await clock.advance(1_000);
    expect(calls.filter((call) => call.startsWith("add"))).toEqual([
      "add drover.dev/pool.local=7",
      "add drover.dev/pool.local=5",
      "add drover.dev/pool.local=5",
    ]);
    await end();
  });

  it("takes nothing back before it has looked at every pool", async () => {
    const said: HostStatus = {
      ...facts,
      ovsDatapath: "userspace",
      pools: [local, { ...local, name: "old" }],
      poolNames: "local,old",
      instances: 0,
    };
    const capacity = { "drover.dev/pool.local": "7", "drover.dev/pool.old": "7" };
    const { clock, calls, host, usage, end } = bench({ host: said, capacity, poolNames: ["local"] });
    await clock.advance(5_000);
    const early = calls.filter((call) => call.startsWith("add") || call.startsWith("remove"));
    expect([...early, ...calls.filter((call) => call === "status ")]).toEqual([]);
    usage.push(local);
    host.poolLooked("local");
    await clock.advance(5_000);
    expect(calls).toContain("remove drover.dev/pool.old=undefined");
    expect(calls).toContain("status local");
    await end();
  });

  it("gives the facts when they are known, the trouble while they are not, and heals", async () => {
    let tries = 0;
    const probe = async (): Promise<HostFacts> => {
      tries += 1;
      if (tries === 1) throw new UserError("NoAccelerator", "no guest runs");
      return facts;
    };
    const { clock, host, end } = bench({ probe });
    await expect(host.facts()).rejects.toMatchObject({ reason: "NoAccelerator" });
    await clock.advance(10_000);
    expect(await host.facts()).toBe(facts);
    await end();
  });
});
