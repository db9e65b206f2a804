/** Several disks, and disks in a pool that nodes share: a live move, a start on another node, and what is left behind. */
import { afterAll, beforeAll, expect, test } from "vitest";
import type { Instance } from "../../crds/instance.ts";
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

const NAMESPACE = "disks";
const NODES = ["n1", "n2", "n3"];
const SIDE = "/srv/disks-side";
const COMMON = "/srv/shared/disks";
let probe: Probe;

const dirPool = (name: string, path: string, more: object = {}) => ({
  apiVersion: "drover.dev/v1alpha1",
  kind: "StoragePool",
  metadata: { name },
  spec: { driver: "dir", source: { path }, ...more },
});
const patch = (name: string, spec: object) =>
  kubectl(["-n", NAMESPACE, "patch", `inst/${name}`, "--type=merge", "-p", JSON.stringify({ spec })]);
const move = async (name: string, spec: { instance: string }): Promise<Migration> => {
  await apply({ apiVersion: "drover.dev/v1alpha1", kind: "Migration", metadata: { name, namespace: NAMESPACE }, spec });
  return eventually(
    async () => {
      const now = await get<Migration>(`dmig/${name}`, NAMESPACE);
      return ["Succeeded", "Failed", "Cancelled"].includes(now.status?.phase ?? "") ? now : undefined;
    },
    120,
    `migration ${name} ends`,
  );
};
const filesOf = (node: string, pool: string, { metadata }: Instance): Promise<string> =>
  inNode(node, "ls", [`/var/lib/drover/pools/${pool}/volumes/${metadata.uid}`]);

beforeAll(async () => {
  const { tiny } = await images();
  await inNode("n1", "mkdir", ["-p", COMMON]);
  for (const node of NODES) await inNode(node, "mkdir", ["-p", SIDE]);
  await apply(namespaceManifest(NAMESPACE));
  await apply(
    poolManifest("local", "8Gi"),
    dirPool("disks-side", SIDE),
    dirPool("disks-common", COMMON, { shared: true }),
    networkManifest(NAMESPACE, "net", OBSERVED_NETWORK),
    virtualMachine(NAMESPACE, "vm", {
      image: tiny,
      network: "net",
      spec: {
        disks: [
          { name: "data", pool: "disks-side", size: "64Mi" },
          { name: "log", pool: "local", size: "32Mi" },
        ],
      },
    }),
    virtualMachine(NAMESPACE, "roam", { image: tiny, network: "net", pool: "disks-common" }),
  );
  for (const name of ["vm", "roam"]) await waitFor(`inst/${name}`, "condition=Ready", 180, NAMESPACE);
  probe = await observer({ node: "n3", namespace: NAMESPACE, network: "net" });
  for (const name of ["vm", "roam"]) await statusWithin(probe, await addressOf(NAMESPACE, name), 60);
});

afterAll(async () => {
  await eventually(async () => (await probe?.remove(), true), 60, "the observer is removed");
  await kubectl(["uncordon", ...NODES]);
  await kubectl(["delete", "namespace", NAMESPACE, "--timeout=120s"], { seconds: 130 });
  await kubectl(["delete", "dpool", "disks-side", "disks-common", "--timeout=90s"], { seconds: 100 });
  const left = await inNode("n1", "ls", ["-A", COMMON]);
  if (left !== "") throw new Error(`the shared directory is not as it was: ${left}`);
});

test("the guest sees its disks in their order, and all of them move with it", async () => {
  const before = await instance(NAMESPACE, "vm");
  const from = before.status?.nodeName ?? "";
  const console = await inNode(from, "cat", [`/var/lib/drover/instances/${before.metadata.uid}/vm/console.log`]);
  expect(console).toContain("GUEST disk vdb 131072 data");
  expect(console).toContain("GUEST disk vdc 65536 log");
  const { bootId } = await status(probe, await addressOf(NAMESPACE, "vm"));
  const { status: now } = await move("several", { instance: "vm" });
  expect(now).toMatchObject({ phase: "Succeeded", sourceNode: from });
  const moved = (now?.disks ?? []).map(({ name, copy }) => `${name} ${copy}`);
  expect(moved.toSorted()).toEqual(["data true", "log true", "root true"]);
  const after = await instance(NAMESPACE, "vm");
  const to = after.status?.nodeName ?? "";
  expect([await filesOf(to, "local", after), await filesOf(to, "disks-side", after)]).toEqual(["log.raw\nroot.raw", "data.raw"]);
  const report = await status(probe, await addressOf(NAMESPACE, "vm"));
  expect(report.bootId).toBe(bootId);
  await eventually(async () => (await leftOn(from, before.metadata.uid)).length === 0, 30, `nothing is left on ${from}`);
  expect((await checkDisk(after, report.lastAcked)).problem).toBeUndefined();
});

test("a shared disk is not copied, and its instance starts wherever it can", async () => {
  const address = await addressOf(NAMESPACE, "roam");
  const { bootId } = await status(probe, address);
  const { status: moved } = await move("roams", { instance: "roam" });
  expect(moved).toMatchObject({ phase: "Succeeded", disks: [{ name: "root", copy: false }] });
  expect(moved?.source?.diskCounters?.totalBytes ?? 0).toBe(0);
  const report = await status(probe, address);
  expect(report.bootId).toBe(bootId);

  const there = await instance(NAMESPACE, "roam");
  const [before, uid] = [there.status?.nodeName ?? "", there.metadata.uid];
  expect(before).toBe(moved?.targetNode);
  await patch("roam", { power: "Stopped" });
  await waitFor("inst/roam", "jsonpath={.status.phase}=Stopped", 90, NAMESPACE);
  await kubectl(["cordon", before]);
  await patch("roam", { power: "Running" });
  await waitFor("inst/roam", "condition=Ready", 120, NAMESPACE);
  const now = await instance(NAMESPACE, "roam");
  expect(now.status?.nodeName).not.toBe(before);
  const next = await statusWithin(probe, address, 60);
  expect(next.bootId).not.toBe(bootId);
  expect((await checkDisk(now, report.lastAcked)).problem).toBeUndefined();
  const left = () => inNode(before, "ls", ["-A", "/var/lib/drover/instances"]);
  await eventually(async () => !(await left()).includes(uid), 90, `nothing of it is left on ${before}`);
  expect(await inNode("n1", "ls", [`${COMMON}/volumes`])).toBe(uid);
  await kubectl(["-n", NAMESPACE, "delete", "inst/roam", "--timeout=90s"], { seconds: 100 });
  expect(await inNode("n1", "ls", ["-A", `${COMMON}/volumes`])).toBe("");
});
