/** Cold moves as a user makes them: a stopped instance goes to another node and another pool with every record that it had. */
import { afterAll, beforeAll, expect, test } from "vitest";
import type { Migration } from "../../crds/migration.ts";
import {
  addressOf,
  checkDisk,
  instance,
  leftOn,
  observer,
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

const NAMESPACE = "cold";
const SIDE = "/srv/cold-side";
let probe: Probe;

const begin = (name: string, spec: object) =>
  apply({
    apiVersion: "drover.dev/v1alpha1",
    kind: "Migration",
    metadata: { name, namespace: NAMESPACE },
    spec: { instance: "vm", mode: "Cold", ...spec },
  });
const end = (name: string): Promise<Migration> =>
  eventually(
    async () => {
      const now = await get<Migration>(`dmig/${name}`, NAMESPACE);
      return ["Succeeded", "Failed", "Cancelled"].includes(now.status?.phase ?? "") ? now : undefined;
    },
    120,
    `migration ${name} ends`,
  );
const power = (to: "Running" | "Stopped") =>
  kubectl(["-n", NAMESPACE, "patch", "inst/vm", "--type=merge", "-p", JSON.stringify({ spec: { power: to } })]);
const claims = () => kubectl(["-n", NAMESPACE, "get", "pods", "-o", "name"]);
const mountOf = (pool: string, uid: string, disk: string): string => `/var/lib/drover/pools/${pool}/volumes/${uid}/${disk}.raw`;

beforeAll(async () => {
  const { tiny } = await images();
  for (const node of ["n1", "n2", "n3"]) await inNode(node, "mkdir", ["-p", SIDE]);
  await apply(namespaceManifest(NAMESPACE));
  await apply(
    poolManifest("local", "8Gi"),
    {
      apiVersion: "drover.dev/v1alpha1",
      kind: "StoragePool",
      metadata: { name: "cold-side" },
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
  await statusWithin(probe, await addressOf(NAMESPACE, "vm"), 60);
});

afterAll(async () => {
  await eventually(async () => (await probe?.remove(), true), 60, "the observer is removed");
  await kubectl(["delete", "namespace", NAMESPACE, "--timeout=120s"], { seconds: 130 });
  await kubectl(["delete", "dpool", "cold-side", "--timeout=90s"], { seconds: 100 });
});

test("a running one is refused, with what to do", async () => {
  await begin("early", {});
  const { status: now } = await end("early");
  expect(now).toMatchObject({ phase: "Failed", reason: "InstanceNotStopped" });
  expect(now?.conditions?.find(({ type }) => type === "Ready")?.message).toContain("spec.power: Stopped");
});

test("a stopped one moves with its disks to another node and another pool, and starts there", async () => {
  const address = await addressOf(NAMESPACE, "vm");
  const before = await status(probe, address);
  await power("Stopped");
  await waitFor("inst/vm", "jsonpath={.status.phase}=Stopped", 90, NAMESPACE);
  const { metadata, status: was } = await instance(NAMESPACE, "vm");
  const from = was?.nodeName ?? "";
  await inNode(from, "sh", [
    "-c",
    `printf moved | dd of=${mountOf("local", metadata.uid, "data")} seek=1000000 bs=1 conv=notrunc,fsync`,
  ]);

  await begin("cold", { target: { pool: "cold-side" } });
  const { status: now } = await end("cold");
  expect(now).toMatchObject({ phase: "Succeeded", sourceNode: from });
  const there = await instance(NAMESPACE, "vm");
  const to = there.status?.nodeName ?? "";
  expect(to).toBe(now?.targetNode);
  expect(to).not.toBe(from);
  expect(there.status).toMatchObject({ phase: "Stopped", disks: [{ name: "root", pool: "cold-side" }] });
  await eventually(async () => (await claims()) === "", 30, "no claim is left");
  await eventually(async () => (await leftOn(from, metadata.uid)).length === 0, 30, `nothing is left on ${from}`);
  expect(await inNode(to, "dd", [`if=${mountOf("local", metadata.uid, "data")}`, "skip=1000000", "bs=1", "count=5"])).toBe(
    "moved",
  );
  expect((await checkDisk(there, before.lastAcked)).problem).toBeUndefined();
  expect(there.status?.lastMigration).toMatchObject({ name: "cold", phase: "Succeeded", from, to });

  await power("Running");
  await waitFor("inst/vm", "condition=Ready", 120, NAMESPACE);
  const after = await statusWithin(probe, address, 60);
  expect(after.bootId).not.toBe(before.bootId);
  expect(after.records).toBeGreaterThanOrEqual(before.lastAcked);
  expect((await instance(NAMESPACE, "vm")).status?.nodeName).toBe(to);
});

test("cancelled while it copies: it stays where it is, and nothing is left at the target", async () => {
  await power("Stopped");
  await waitFor("inst/vm", "jsonpath={.status.phase}=Stopped", 90, NAMESPACE);
  const { metadata, status: was } = await instance(NAMESPACE, "vm");
  await begin("slow", { policy: { maxBytesPerSecond: "1Mi" } });
  await eventually(async () => (await get<Migration>("dmig/slow", NAMESPACE)).status?.phase === "CopyingDisk", 60, "it copies");
  await kubectl(["-n", NAMESPACE, "patch", "dmig/slow", "--type=merge", "-p", '{"spec":{"cancel":true}}']);
  const { status: now } = await end("slow");
  expect(now?.phase).toBe("Cancelled");
  await eventually(async () => (await leftOn(now?.targetNode ?? "", metadata.uid)).length === 0, 30, "nothing is left there");
  expect((await instance(NAMESPACE, "vm")).status?.nodeName).toBe(was?.nodeName);
  await power("Running");
  await waitFor("inst/vm", "condition=Ready", 120, NAMESPACE);
});
