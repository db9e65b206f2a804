/** Disks that go to another pool: of the same node, under a guest that runs and of one that does not, and on the way to another node. */
import { afterAll, beforeAll, expect, test } from "vitest";
import { disksOf } from "../../crds/disks.ts";
import type { Instance } from "../../crds/instance.ts";
import type { Migration } from "../../crds/migration.ts";
import {
  addressOf,
  checkDisk,
  instance,
  leftOn,
  observer,
  processOf,
  status,
  statusWithin,
  OBSERVED_NETWORK,
} from "../../hack/kit/guest.ts";
import {
  apply,
  eventually,
  get,
  images,
  kubectl,
  namespaceManifest,
  networkManifest,
  poolManifest,
  virtualMachine,
  waitFor,
} from "../../hack/kit/cluster.ts";
import { inNode } from "../../hack/lab/index.ts";
import type { Probe } from "../../hack/lab/probe.ts";
import type { Pod } from "../../kube/index.ts";

const NAMESPACE = "pools";
const NODES = ["n1", "n2", "n3"];
const SIDE = "/srv/pools-side";
const ONE = "/srv/pools-one";
/** Where the lab's agents look for what holds them (chart value dev.checkpoints). */
const CHECKPOINTS = "/var/lib/drover/checkpoints";
const AGENT = "^node /opt/drover/node-agent/main.ts$";
let probe: Probe;
let address: string;

const begin = (name: string, spec: object) =>
  apply({
    apiVersion: "drover.dev/v1alpha1",
    kind: "Migration",
    metadata: { name, namespace: NAMESPACE },
    spec: { instance: "vm", ...spec },
  });
const end = (name: string): Promise<Migration> =>
  eventually(
    async () => {
      const now = await get<Migration>(`dmig/${name}`, NAMESPACE);
      return ["Succeeded", "Failed", "Cancelled"].includes(now.status?.phase ?? "") ? now : undefined;
    },
    150,
    `migration ${name} ends`,
  );
const power = (to: "Running" | "Stopped") =>
  kubectl(["-n", NAMESPACE, "patch", "inst/vm", "--type=merge", "-p", JSON.stringify({ spec: { power: to } })]);
/** Names of the disks in a pool of the instance's node. */
const disksIn = async (pool: string, { metadata, status: now }: Instance): Promise<string> =>
  (await leftOn(now?.nodeName ?? "", metadata.uid)).some((path) => path.includes(`/pools/${pool}/`))
    ? inNode(now?.nodeName ?? "", "ls", [`/var/lib/drover/pools/${pool}/volumes/${metadata.uid}`])
    : "";
/** What its claim asks of each pool. */
async function asked(): Promise<Record<string, string>> {
  const { items } = JSON.parse(await kubectl(["-n", NAMESPACE, "get", "pods", "-o", "json"])) as { items: Pod[] };
  expect(items.length, "it has one claim").toBe(1);
  const requests = items[0]?.spec.containers[0]?.resources?.requests ?? {};
  return Object.fromEntries(Object.entries(requests).filter(([name]) => name.startsWith("drover.dev/pool.")));
}
const capacity = async (node: string): Promise<Record<string, string>> => {
  const { status: now } = await get<{ status: { capacity: Record<string, string> } }>(`node/${node}`);
  return Object.fromEntries(Object.entries(now.capacity).filter(([name]) => /pool\.(local|pools-side)$/.test(name)));
};

beforeAll(async () => {
  const { tiny } = await images();
  for (const node of NODES) await inNode(node, "mkdir", ["-p", SIDE, ONE]);
  await apply(namespaceManifest(NAMESPACE));
  await apply(
    poolManifest("local", "8Gi"),
    {
      apiVersion: "drover.dev/v1alpha1",
      kind: "StoragePool",
      metadata: { name: "pools-side" },
      spec: { driver: "dir", source: { path: SIDE } },
    },
    networkManifest(NAMESPACE, "net", OBSERVED_NETWORK),
    virtualMachine(NAMESPACE, "vm", {
      image: tiny,
      network: "net",
      spec: { disks: [{ name: "data", pool: "local", size: "64Mi" }] },
    }),
  );
  await waitFor("inst/vm", "condition=Ready", 180, NAMESPACE);
  probe = await observer({ node: "n3", namespace: NAMESPACE, network: "net" });
  address = await addressOf(NAMESPACE, "vm");
  await statusWithin(probe, address, 60);
});

afterAll(async () => {
  await eventually(async () => (await probe?.remove(), true), 60, "the observer is removed");
  await kubectl(["delete", "namespace", NAMESPACE, "--timeout=120s"], { seconds: 130 });
  await kubectl(["delete", "dpool", "pools-side", "--timeout=90s"], { seconds: 100 });
});

test("a disk goes to another pool of its node while its guest writes; process, boot and every record stay", async () => {
  const before = await instance(NAMESPACE, "vm");
  const node = before.status?.nodeName ?? "";
  const [was, process, offered] = [await status(probe, address), await processOf(before), await capacity(node)];
  expect(await asked()).toEqual({ "drover.dev/pool.local": "2" });
  await begin("side", { target: { node, pool: "pools-side" } });
  const { status: moved } = await end("side");
  expect(moved).toMatchObject({ phase: "Succeeded", sourceNode: node, targetNode: node });
  expect(moved?.disks?.map(({ name, copy }) => `${name} ${copy}`).toSorted()).toEqual(["data false", "root true"]);
  const after = await instance(NAMESPACE, "vm");
  expect(after.status).toMatchObject({ phase: "Running", nodeName: node, disks: [{ name: "root", pool: "pools-side" }] });
  expect(after.status?.lastMigration).toMatchObject({ name: "side", phase: "Succeeded", from: node, to: node });
  expect(after.status?.claim?.serial).toBe((before.status?.claim?.serial ?? 0) + 1);
  expect(after.status?.guest?.claimUid).toBe(after.status?.claim?.uid);
  expect(await processOf(after)).toBe(process);
  expect([await disksIn("pools-side", after), await disksIn("local", after)]).toEqual(["root.raw", "data.raw"]);
  await eventually(
    async () => !(await kubectl(["-n", NAMESPACE, "get", "pods", "-o", "name"])).includes("\n"),
    60,
    "one claim is left",
  );
  expect(await asked()).toEqual({ "drover.dev/pool.local": "1", "drover.dev/pool.pools-side": "1" });
  expect(await capacity(node)).toEqual(offered);
  const cgroup = await inNode(node, "cat", [`/proc/${after.status?.guest?.pid}/cgroup`]);
  expect(cgroup).toContain(`pod${after.status?.claim?.uid}/drover`);
  const report = await eventually(
    async () => {
      const now = await status(probe, address);
      return now.lastAcked > was.lastAcked + 5 ? now : undefined;
    },
    60,
    "it writes on",
  );
  expect(report.bootId).toBe(was.bootId);
  expect((await checkDisk(after, report.lastAcked)).problem).toBeUndefined();
});

test("the node's next agent takes it for what it is", async () => {
  const before = await instance(NAMESPACE, "vm");
  const [was, process] = [await status(probe, address), await processOf(before)];
  await kubectl(["-n", "drover-system", "rollout", "restart", "ds/drover-agent"]);
  await kubectl(["-n", "drover-system", "rollout", "status", "ds/drover-agent", "--timeout=120s"], { seconds: 130 });
  await waitFor("inst/vm", "condition=Ready", 60, NAMESPACE);
  const after = await instance(NAMESPACE, "vm");
  expect(await processOf(after)).toBe(process);
  expect(after.status?.claim?.uid).toBe(before.status?.claim?.uid);
  expect((await statusWithin(probe, address, 60)).bootId).toBe(was.bootId);
});

test("it then moves to another node, and from there to a third and another pool at once", async () => {
  const was = await status(probe, address);
  const first = await instance(NAMESPACE, "vm");
  for (const [name, target, pool] of [
    ["away", {}, "pools-side"],
    ["both", { pool: "local" }, "local"],
  ] as const) {
    const from = (await instance(NAMESPACE, "vm")).status?.nodeName ?? "";
    await begin(name, { target });
    expect((await end(name)).status).toMatchObject({ phase: "Succeeded", sourceNode: from });
    const there = await instance(NAMESPACE, "vm");
    expect(there.status?.nodeName).not.toBe(from);
    expect(await disksIn(pool, there)).toContain("root.raw");
    await eventually(async () => (await leftOn(from, first.metadata.uid)).length === 0, 30, `nothing is left on ${from}`);
    const report = await statusWithin(probe, address, 60);
    expect(report.bootId).toBe(was.bootId);
    expect((await checkDisk(there, report.lastAcked)).problem).toBeUndefined();
  }
  const now = await instance(NAMESPACE, "vm");
  expect(now.status?.disks).toBeUndefined();
  expect(await disksIn("local", now)).toBe("data.raw\nroot.raw");
});

test("cancelled while it copies: the disk stays where it is, and the other pool is as it was", async () => {
  const before = await instance(NAMESPACE, "vm");
  const [was, process] = [await status(probe, address), await processOf(before)];
  const node = before.status?.nodeName;
  await begin("slow", { target: { node, pool: "pools-side" }, policy: { maxBytesPerSecond: "1Mi" } });
  await eventually(
    async () => {
      const now = (await get<Migration>("dmig/slow", NAMESPACE)).status;
      return now?.phase === "CopyingDisk" && now.source?.progress !== undefined;
    },
    60,
    "it copies, and says how far",
  );
  await kubectl(["-n", NAMESPACE, "patch", "dmig/slow", "--type=merge", "-p", '{"spec":{"cancel":true}}']);
  expect((await end("slow")).status).toMatchObject({ phase: "Cancelled" });
  const after = await instance(NAMESPACE, "vm");
  expect(after.status?.claim?.uid).toBe(before.status?.claim?.uid);
  expect(await disksIn("pools-side", after)).toBe("");
  expect(await processOf(after)).toBe(process);
  const report = await statusWithin(probe, address, 60);
  expect(report.bootId).toBe(was.bootId);
  expect((await checkDisk(after, report.lastAcked)).problem).toBeUndefined();
});

test("the pool that it lies in is refused", async () => {
  const node = (await instance(NAMESPACE, "vm")).status?.nodeName;
  await begin("same", { target: { node, pool: "local" } });
  const { status: now } = await end("same");
  expect(now).toMatchObject({ phase: "Failed", reason: "TargetIsPresentNode" });
  expect(now?.conditions?.find(({ type }) => type === "Ready")?.message).toContain("with its root disk in pool local");
});

test("without a node it stays where it is, if no other has that pool", async () => {
  const before = await instance(NAMESPACE, "vm");
  const node = before.status?.nodeName ?? "";
  await apply({
    apiVersion: "drover.dev/v1alpha1",
    kind: "StoragePool",
    metadata: { name: "pools-one" },
    spec: { driver: "dir", source: { path: ONE }, nodeSelector: { matchLabels: { "kubernetes.io/hostname": node } } },
  });
  await waitFor("dpool/pools-one", "condition=Ready", 60);
  const process = await processOf(before);
  await begin("only", { target: { pool: "pools-one" } });
  expect((await end("only")).status).toMatchObject({ phase: "Succeeded", sourceNode: node, targetNode: node });
  expect(await disksIn("pools-one", await instance(NAMESPACE, "vm"))).toBe("root.raw");
  await begin("from-one", { target: { node, pool: "local" } });
  expect((await end("from-one")).status).toMatchObject({ phase: "Succeeded", targetNode: node });
  const after = await instance(NAMESPACE, "vm");
  expect([await disksIn("pools-one", after), await disksIn("local", after)]).toEqual(["", "data.raw\nroot.raw"]);
  expect(await processOf(after)).toBe(process);
  // Nothing of the guest, which runs on, holds the pool that its disk has left.
  await kubectl(["delete", "dpool", "pools-one", "--timeout=60s"], { seconds: 70 });
});

/**
 * complete: what is written goes to both. note: nothing is written any more; a QEMU that dies there leaves two volumes that are the same,
 * so the agent, which has seen that, goes on. pivot: the new one is right, and nothing is written yet.
 */
test.each([
  ["agent", "complete", 0],
  ["agent", "note", 0],
  ["agent", "pivot", 0],
  ["QEMU", "complete", 1],
  ["QEMU", "note", 0],
  ["QEMU", "pivot", 0],
] as const)("the %s dies before %s: the disk has every record, and gets to its pool", async (victim, step, retries) => {
  const before = await instance(NAMESPACE, "vm");
  const node = before.status?.nodeName ?? "";
  const pool = before.status?.disks === undefined ? "pools-side" : "local";
  const was = await statusWithin(probe, address, 60);
  await inNode(node, "mkdir", ["-p", CHECKPOINTS]);
  await inNode(node, "touch", [`${CHECKPOINTS}/local.${step}.hold`]);
  const name = `${victim}-${step}`.toLowerCase();
  try {
    await begin(name, { target: { node, pool } });
    await eventually(
      () =>
        inNode(node, "test", ["-e", `${CHECKPOINTS}/local.${step}.reached`]).then(
          () => true,
          () => false,
        ),
      60,
      "it is held",
    );
    const pattern = victim === "agent" ? AGENT : `^/usr/bin/qemu-system-x86_64 -name guest=${NAMESPACE}/vm,`;
    await inNode(node, "sh", ["-c", 'kill -KILL $(pgrep -f "$0")', pattern]);
  } finally {
    await inNode(node, "sh", ["-c", 'rm -f "$0"/local.*', CHECKPOINTS]);
  }
  const { status: moved } = await end(name);
  expect(moved).toMatchObject({ phase: "Succeeded", targetNode: node });
  expect(moved?.retries ?? 0).toBe(retries);
  await waitFor("inst/vm", "condition=Ready", 120, NAMESPACE);
  const after = await instance(NAMESPACE, "vm");
  expect(await disksIn(pool, after)).toContain("root.raw");
  const report = await statusWithin(probe, address, 60);
  expect(report.bootId === was.bootId, "the guest is the same").toBe(victim === "agent");
  expect(report.records).toBeGreaterThanOrEqual(was.lastAcked);
  const { report: log, problem } = await checkDisk(after, Math.max(was.lastAcked, report.lastAcked));
  expect(problem).toBeUndefined();
  expect(log.records).toBeGreaterThan(was.lastAcked);
});

test("a stopped one changes its pool where it is, and starts from there", async () => {
  const was = await statusWithin(probe, address, 60);
  const pool = (await instance(NAMESPACE, "vm")).status?.disks === undefined ? "pools-side" : "local";
  await power("Stopped");
  await waitFor("inst/vm", "jsonpath={.status.phase}=Stopped", 90, NAMESPACE);
  const node = (await instance(NAMESPACE, "vm")).status?.nodeName;
  await begin("cold", { mode: "Cold", target: { node, pool } });
  expect((await end("cold")).status).toMatchObject({ phase: "Succeeded", sourceNode: node, targetNode: node });
  const after = await instance(NAMESPACE, "vm");
  expect(after.status).toMatchObject({ phase: "Stopped", nodeName: node });
  expect(disksOf(after)[0]).toMatchObject({ name: "root", pool });
  expect(await disksIn(pool, after)).toContain("root.raw");
  expect(await disksIn(pool === "local" ? "pools-side" : "local", after)).not.toContain("root.raw");
  expect((await checkDisk(after, was.lastAcked)).problem).toBeUndefined();
  await power("Running");
  await waitFor("inst/vm", "condition=Ready", 120, NAMESPACE);
  const next = await statusWithin(probe, address, 60);
  expect(next.bootId).not.toBe(was.bootId);
  expect(next.records).toBeGreaterThanOrEqual(was.lastAcked);
  expect((await instance(NAMESPACE, "vm")).status?.nodeName).toBe(node);
});
