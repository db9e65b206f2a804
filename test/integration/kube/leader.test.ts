/** Two operators that fight for one Lease on a real API server, each in a process of its own. */
import path from "node:path";
import { createInterface } from "node:readline";
import { execa, type ResultPromise } from "execa";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { resources, type Lease } from "../../../kube/index.ts";
import { eventually, remove, startWorld, type World } from "./world.ts";

let world: World;
const running: ResultPromise[] = [];
beforeAll(async () => {
  world = await startWorld();
});
afterAll(() => world?.plane.stop());
beforeEach(async () => {
  await world.client.delete(resources.leases, { namespace: "default", name: "fight" });
  for (const one of await world.client.list(resources.configMaps, { namespace: "default" }))
    await remove(world.client, one.metadata.name);
});
afterEach(async () => {
  for (const child of running.splice(0)) {
    child.kill("SIGCONT");
    child.kill("SIGKILL");
    // It was killed, so it rejects.
    await child.catch(() => undefined);
  }
});

interface Candidate {
  identity: string;
  child: ResultPromise;
  count(what: string): number;
  /** The next time it says this. */
  next(what: string): Promise<void>;
}

const start = (identity: string): Candidate => {
  const child = execa(process.execPath, [path.join(import.meta.dirname, "candidate.ts"), world.plane.kubeconfig, identity], {
    buffer: false,
    stdin: "ignore",
    stdout: "pipe",
    stderr: "inherit",
    cleanup: true,
  });
  child.catch(() => undefined);
  running.push(child);
  const counts = new Map<string, number>();
  const waiting: { what: string; resolve: () => void }[] = [];
  createInterface({ input: child.stdout }).on("line", (line) => {
    const { what } = JSON.parse(line) as { what: string };
    counts.set(what, (counts.get(what) ?? 0) + 1);
    for (const one of waiting.filter((entry) => entry.what === what)) {
      waiting.splice(waiting.indexOf(one), 1);
      one.resolve();
    }
  });
  return {
    identity,
    child,
    count: (what) => counts.get(what) ?? 0,
    next: (what) => new Promise((resolve) => waiting.push({ what, resolve })),
  };
};

/** Who acted, in the order in which the API server took the acts, each run of one's acts shortened to one entry. */
const turns = async (): Promise<string[]> => {
  const acts = (await world.client.list(resources.configMaps, { namespace: "default" }))
    .filter((one) => one.metadata.name.startsWith("act-"))
    .sort((a, b) => Number(a.metadata.resourceVersion) - Number(b.metadata.resourceVersion))
    .map((one) => one.data?.["identity"] ?? "");
  return acts.filter((identity, n) => identity !== acts[n - 1]);
};
const lease = async (): Promise<Lease["spec"]> =>
  (await world.client.get(resources.leases, { namespace: "default", name: "fight" }))?.spec;

describe("two operators", () => {
  it("only one acts; when it is told to end, the other follows at once", async () => {
    const a = start("a");
    await eventually(() => expect(a.count("acted")).toBeGreaterThan(3));
    const b = start("b");
    await b.next("started");
    await eventually(() => expect(a.count("acted")).toBeGreaterThan(30));
    expect(b.count("acted")).toBe(0);
    const follows = b.next("leads");
    a.child.kill("SIGTERM");
    const began = performance.now();
    await a.child;
    // Handed back, not left to end by itself.
    expect(["", "b"]).toContain((await lease())?.holderIdentity);
    await follows;
    expect(performance.now() - began).toBeLessThan(3_000);
    await b.next("acted");
    expect(await turns()).toEqual(["a", "b"]);
    expect(await lease()).toMatchObject({ holderIdentity: "b" });
    expect(a.count("ended")).toBe(1);
  });

  it("a leader that is killed is followed when its Lease has ended, not before", async () => {
    const a = start("a");
    await a.next("acted");
    const b = start("b");
    await b.next("started");
    await a.next("acted");
    const began = performance.now();
    a.child.kill("SIGKILL");
    await b.next("leads");
    expect(performance.now() - began).toBeGreaterThan(2_000);
    await b.next("acted");
    expect(await turns()).toEqual(["a", "b"]);
  });

  it("a leader that was frozen writes nothing when it wakes after another began", async () => {
    const a = start("a");
    await eventually(() => expect(a.count("acted")).toBeGreaterThan(3));
    const b = start("b");
    await b.next("started");
    await a.next("acted");
    a.child.kill("SIGSTOP");
    await b.next("acted");
    const transitions = (await lease())?.leaseTransitions;
    expect(transitions).toBe(1);
    const [acted, refused] = [a.count("acted"), a.count("refused")];
    a.child.kill("SIGCONT");
    await a.next("refused");
    await eventually(() => expect(b.count("acted")).toBeGreaterThan(20));
    expect(a.count("refused")).toBeGreaterThan(refused);
    expect(a.count("acted")).toBe(acted);
    expect(await turns()).toEqual(["a", "b"]);
    expect((await lease())?.leaseTransitions).toBe(1);
  });

  it("while the API server is frozen nobody acts, and a leader that could not renew has stopped by itself", async () => {
    const a = start("a");
    await eventually(() => expect(a.count("acted")).toBeGreaterThan(3));
    world.plane.signal("kube-apiserver", "SIGSTOP");
    try {
      await a.next("stops");
    } finally {
      world.plane.signal("kube-apiserver", "SIGCONT");
    }
    expect(a.count("failed")).toBeGreaterThan(0);
    await a.next("leads");
    await a.next("acted");
    expect(await turns()).toEqual(["a"]);
  });
});
