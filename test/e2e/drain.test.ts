/** A node is drained as an administrator does it: its instances leave, running, and the drain ends by itself. */
import { execa } from "execa";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
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
  type GuestReport,
} from "../../hack/kit/cluster.ts";
import { lab } from "../../hack/lab/index.ts";
import type { Probe } from "../../hack/lab/probe.ts";

const NAMESPACE = "drains";
const NODE = "n1";
/** What everybody adds who drains nodes: pods that the node's DaemonSets make again, and scratch directories. */
const USUAL = ["--ignore-daemonsets", "--delete-emptydir-data"];
const LABEL = "drover-drains";
let probe: Probe;
const before = new Map<string, GuestReport>();

/** `kubectl drain`, with all that it says; never by force. */
const drain = async (...more: string[]): Promise<{ ended: boolean; said: string }> => {
  const { kubectl: command, kubeconfig } = lab();
  const args = ["--kubeconfig", kubeconfig, "drain", NODE, ...USUAL, ...more];
  const result = await execa(command, args, { reject: false, all: true, stdin: "ignore", timeout: 240_000 });
  return { ended: result.exitCode === 0, said: result.all };
};

const list = async <T>(kind: string): Promise<T[]> => (await get<{ items: T[] }>(kind, NAMESPACE)).items;
const condition = (of: Instance, type: string) => of.status?.conditions?.find((one) => one.type === type);
const guest = async (name: string): Promise<GuestReport> => status(probe, await addressOf(NAMESPACE, name));
const claimsOnNode = async (): Promise<string> =>
  kubectl(["get", "pods", "-n", NAMESPACE, "-l", "drover.dev/claim", "--field-selector", `spec.nodeName=${NODE}`, "-o", "name"]);
const patchInstance = (name: string, spec: object): Promise<string> =>
  kubectl(["-n", NAMESPACE, "patch", `inst/${name}`, "--type=merge", "-p", JSON.stringify({ spec })]);

beforeAll(async () => {
  const { tiny } = await images();
  // Nobody else's instances are here when this node is drained.
  for (const node of ["n1", "n2", "n3"]) await kubectl(["label", "node", node, `${LABEL}-`]);
  await kubectl(["label", "node", NODE, `${LABEL}=here`, "--overwrite"]);
  await apply(namespaceManifest(NAMESPACE), poolManifest("local", "8Gi"));
  const here = { placement: { nodeSelector: { [LABEL]: "here" } } };
  await apply(
    networkManifest(NAMESPACE, "net", OBSERVED_NETWORK),
    ...["one", "two"].map((name) => virtualMachine(NAMESPACE, name, { image: tiny, network: "net", spec: here })),
    virtualMachine(NAMESPACE, "stops", { image: tiny, network: "net", spec: { ...here, onDrain: "Stop" } }),
  );
  for (const name of ["one", "two", "stops"]) await waitFor(`inst/${name}`, "condition=Ready", 180, NAMESPACE);
  await kubectl(["label", "node", "n2", "n3", `${LABEL}=here`, "--overwrite"]);
  // The quota has no room for a second claim of anybody.
  const hard = { pods: "3" };
  await apply({ apiVersion: "v1", kind: "ResourceQuota", metadata: { name: "full", namespace: NAMESPACE }, spec: { hard } });
  probe = await observer({ node: "n3", namespace: NAMESPACE, network: "net" });
  for (const name of ["one", "two", "stops"]) {
    before.set(name, await statusWithin(probe, await addressOf(NAMESPACE, name), 60));
  }
});

afterAll(async () => {
  await kubectl(["uncordon", NODE]);
  await eventually(async () => (await probe?.remove(), true), 60, "the observer is removed");
  await kubectl(["delete", "namespace", NAMESPACE, "--timeout=180s"], { seconds: 190 });
  for (const node of ["n1", "n2", "n3"]) await kubectl(["label", "node", node, `${LABEL}-`]);
});

describe("draining a node", () => {
  test("a cordon and a dry run move nothing", async () => {
    await kubectl(["cordon", NODE]);
    const { said } = await drain("--dry-run=server", "--timeout=12s", "--pod-selector=drover.dev/claim");
    expect(said).toContain("instance one is moved to another node first");
    expect(await list<Migration>("dmig")).toEqual([]);
    for (const one of await list<Instance>("inst")) {
      expect(one.status).toMatchObject({ phase: "Running", nodeName: NODE });
      expect(condition(one, "Draining")).toBeUndefined();
    }
  });

  test("an instance that refuses says so, and the drain waits for it", async () => {
    await patchInstance("two", { onDrain: "Refuse" });
    const { ended, said } = await drain("--timeout=12s", "--pod-selector=drover.dev/claim=two");
    expect(ended).toBe(false);
    expect(said).toContain("instance two stays where it is, as its spec.onDrain says: Refuse");
    expect(condition(await instance(NAMESPACE, "two"), "Draining")).toMatchObject({ status: "True", reason: "OnDrainRefuse" });
    const events = await kubectl(["-n", NAMESPACE, "get", "events", "--field-selector", "reason=DrainStuck", "-o", "name"]);
    expect(events).not.toBe("");
    await patchInstance("two", { onDrain: "LiveMigrate" });
  });

  test("ends without force: what moves runs on, what stops is shut down, a full quota is no hindrance", async () => {
    const { ended, said } = await drain("--timeout=200s");
    expect({ ended, said }).toMatchObject({ ended: true });
    expect(said).toContain("instance stops is shut down first, as its spec.onDrain says: Stop");
    expect(await claimsOnNode()).toBe("");
    for (const name of ["one", "two"]) {
      const now = await instance(NAMESPACE, name);
      expect(now.status).toMatchObject({ phase: "Running", lastMigration: { phase: "Succeeded", from: NODE } });
      expect(now.status?.nodeName).not.toBe(NODE);
      const after = await guest(name);
      expect(after.bootId).toBe(before.get(name)?.bootId);
      expect((await checkDisk(now, after.lastAcked)).problem).toBeUndefined();
      await eventually(async () => (await leftOn(NODE, now.metadata.uid)).length === 0, 30, `nothing of ${name} is left`);
    }
    const quota = await get<{ spec: object; status: { hard: object } }>("quota/full", NAMESPACE);
    expect(quota.spec).toEqual({ hard: { pods: "3" } });
    expect(quota.status.hard).toEqual({ pods: "3" });
    for (const { spec } of await list<Migration>("dmig")) expect(spec.priority).toBe("Drain");
  });

  test("what was stopped waits for its node, and starts when it is back", async () => {
    const waits = async () => {
      const { phase, nodeName } = (await instance(NAMESPACE, "stops")).status ?? {};
      return phase === "Pending" && nodeName === NODE;
    };
    await eventually(waits, 60, "it waits for its node");
    await kubectl(["uncordon", NODE]);
    await waitFor("inst/stops", "condition=Ready", 120, NAMESPACE);
    await waitFor("inst/one", "condition=Draining=False", 60, NAMESPACE);
    const after = await statusWithin(probe, await addressOf(NAMESPACE, "stops"), 60);
    expect(after.bootId).not.toBe(before.get("stops")?.bootId);
    // A clean stop loses nothing that was acknowledged before.
    const { problem } = await checkDisk(await instance(NAMESPACE, "stops"), before.get("stops")?.lastAcked ?? 0);
    expect(problem).toBeUndefined();
  });
});
