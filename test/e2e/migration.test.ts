/** Live moves as a user makes them: the guest runs on, nobody on its network notices, nothing stays behind. */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { Migration } from "../../crds/migration.ts";
import {
  addressOf,
  ask,
  checkDisk,
  instance,
  leftOn,
  observer,
  status,
  statusWithin,
  whileEchoing,
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
  virtualMachine,
  waitFor,
} from "../../hack/kit/cluster.ts";
import { portOptions } from "../../hack/kit/northbound.ts";
import { inNode } from "../../hack/lab/index.ts";
import type { Probe } from "../../hack/lab/probe.ts";

const NAMESPACE = "moves";
let probe: Probe;
let address: string;

const migration = (name: string, spec: object) => ({
  apiVersion: "drover.dev/v1alpha1",
  kind: "Migration",
  metadata: { name, namespace: NAMESPACE },
  spec: { instance: "vm", ...spec },
});

const migrationNow = (name: string): Promise<Migration> => get<Migration>(`dmig/${name}`, NAMESPACE);
const isOver = ({ status: now }: Migration): boolean => ["Succeeded", "Failed", "Cancelled"].includes(now?.phase ?? "");
const end = (name: string, seconds = 120): Promise<Migration> =>
  eventually(
    async () => {
      const now = await migrationNow(name);
      return isOver(now) ? now : undefined;
    },
    seconds,
    `migration ${name} ends`,
  );

const nodeOf = async (): Promise<string> => (await instance(NAMESPACE, "vm")).status?.nodeName ?? "";

/** Nothing of the guest is on this node, and its port is the other's alone. */
const expectGone = async (node: string): Promise<void> => {
  const vm = await instance(NAMESPACE, "vm");
  await eventually(async () => (await leftOn(node, vm.metadata.uid)).length === 0, 30, `nothing is left on ${node}`);
  await eventually(
    async () => {
      const { chassis, strategy } = await portOptions(vm.status?.nics?.[0]?.port ?? "");
      return chassis === vm.status?.nodeName && strategy === "";
    },
    30,
    "the port is bound to one node",
  );
  // The kubelet ends a pod in its own time.
  await eventually(
    async () =>
      (await kubectl(["-n", NAMESPACE, "get", "pods", "-l", "drover.dev/claim=vm", "-o", "name"])).split("\n").length === 1,
    30,
    "there is one claim",
  );
};

beforeAll(async () => {
  const { tiny } = await images();
  await apply(namespaceManifest(NAMESPACE));
  await apply(
    {
      apiVersion: "drover.dev/v1alpha1",
      kind: "StoragePool",
      metadata: { name: "local" },
      spec: { driver: "btrfs", source: { loop: { size: "8Gi" } } },
    },
    networkManifest(NAMESPACE, "net", OBSERVED_NETWORK),
    virtualMachine(NAMESPACE, "vm", {
      image: tiny,
      network: "net",
      spec: { placement: { nodeSelector: { "drover-moves": "here" } } },
    }),
  );
  for (const node of ["n1", "n2"]) await kubectl(["label", "node", node, "drover-moves=here", "--overwrite"]);
  await waitFor("inst/vm", "condition=Ready", 180, NAMESPACE);
  address = await addressOf(NAMESPACE, "vm");
  probe = await observer({ node: "n3", namespace: NAMESPACE, network: "net" });
  await statusWithin(probe, address, 60);
});

afterAll(async () => {
  await eventually(async () => (await probe?.remove(), true), 60, "the observer is removed");
  await kubectl(["delete", "namespace", NAMESPACE, "--timeout=120s"], { seconds: 130 });
  for (const node of ["n1", "n2"]) await kubectl(["label", "node", node, "drover-moves-"]);
});

describe("a live move", () => {
  test("the first of a fresh instance: same boot, every record, nothing left behind", async () => {
    const from = await nodeOf();
    const before = await status(probe, address);
    await ask(probe, address, "/dirty/20/32");
    const { silenceMs, result } = await whileEchoing(probe, address, async () => {
      await apply(migration("first", {}));
      return end("first");
    });
    expect(result.status).toMatchObject({ phase: "Succeeded", sourceNode: from });
    const after = await status(probe, address);
    expect(after.bootId).toBe(before.bootId);
    expect(after.lastAcked).toBeGreaterThan(before.lastAcked);
    expect(await nodeOf()).toBe(result.status?.targetNode);
    expect(await nodeOf()).not.toBe(from);
    expect(silenceMs).toBeLessThan(5000);
    expect(result.status?.source?.pauseMs).toBeGreaterThan(0);
    await expectGone(from);
    const { problem } = await checkDisk(await instance(NAMESPACE, "vm"), after.lastAcked);
    expect(problem).toBeUndefined();
  });

  test("it tells what a user wants to know", async () => {
    const { targetNode, sourceNode, source } = (await migrationNow("first")).status ?? {};
    const [head = "", row = ""] = (await kubectl(["-n", NAMESPACE, "get", "dmig", "first"])).split("\n");
    expect(head.split(/\s+/)).toEqual(["NAME", "INSTANCE", "FROM", "TO", "PHASE", "PROGRESS", "PAUSE", "AGE"]);
    expect(row).toMatch(new RegExp(`^first +vm +${sourceNode} +${targetNode} +Succeeded +100% +\\d+ms +\\S+$`));
    expect(source?.diskCounters?.doneBytes).toBeGreaterThan(0);
    expect(source?.memoryCounters?.doneBytes).toBeGreaterThan(0);
    const { lastMigration, conditions } = (await instance(NAMESPACE, "vm")).status ?? {};
    expect(lastMigration).toMatchObject({ name: "first", phase: "Succeeded", from: sourceNode, to: targetNode });
    expect(conditions).toContainEqual(expect.objectContaining({ type: "Migratable", status: "True" }));
    const events = await kubectl([
      "-n",
      NAMESPACE,
      "get",
      "events",
      "-o",
      "custom-columns=:.reason,:.regarding.kind,:.regarding.name",
      "--no-headers",
    ]).catch(() => "");
    expect(events).not.toBe("");
  });

  test("to a node that is named, and back", async () => {
    const from = await nodeOf();
    const to = from === "n1" ? "n2" : "n1";
    const before = await status(probe, address);
    for (const [index, node] of [to, from].entries()) {
      await apply(migration(`named-${index}`, { target: { node } }));
      expect((await end(`named-${index}`)).status).toMatchObject({ phase: "Succeeded", targetNode: node });
      expect(await nodeOf()).toBe(node);
    }
    const after = await status(probe, address);
    expect(after.bootId).toBe(before.bootId);
    await expectGone(to);
    const { problem } = await checkDisk(await instance(NAMESPACE, "vm"), after.lastAcked);
    expect(problem).toBeUndefined();
  });

  test("cancelled while it copies: the guest stays, nothing is left at the target", async () => {
    const from = await nodeOf();
    const before = await status(probe, address);
    await apply(migration("cancelled", { policy: { maxBytesPerSecond: "2Mi" } }));
    await eventually(async () => ((await migrationNow("cancelled")).status?.phase ?? "").startsWith("Copying"), 60, "it copies");
    await kubectl(["-n", NAMESPACE, "patch", "dmig/cancelled", "--type=merge", "-p", '{"spec":{"cancel":true}}']);
    const now = await end("cancelled", 30);
    expect(now.status?.phase).toBe("Cancelled");
    expect(await nodeOf()).toBe(from);
    const after = await status(probe, address);
    expect(after.bootId).toBe(before.bootId);
    expect(after.lastAcked).toBeGreaterThan(before.lastAcked);
    await expectGone(now.status?.targetNode ?? "");
    await waitFor("inst/vm", "condition=Ready", 30, NAMESPACE);
  });

  test("deleted while it copies: the same", async () => {
    const from = await nodeOf();
    await apply(migration("deleted", { policy: { maxBytesPerSecond: "2Mi" } }));
    await eventually(async () => ((await migrationNow("deleted")).status?.phase ?? "").startsWith("Copying"), 60, "it copies");
    const { targetNode = "" } = (await migrationNow("deleted")).status ?? {};
    await kubectl(["-n", NAMESPACE, "delete", "dmig/deleted", "--timeout=60s"], { seconds: 70 });
    expect(await nodeOf()).toBe(from);
    await expectGone(targetNode);
    expect((await instance(NAMESPACE, "vm")).status?.lastMigration).toMatchObject({ name: "deleted", phase: "Cancelled" });
  });

  test("power off while it copies: the move is cancelled, the guest shut down; with power it runs again", async () => {
    await apply(migration("power", { policy: { maxBytesPerSecond: "2Mi" } }));
    await eventually(async () => ((await migrationNow("power")).status?.phase ?? "").startsWith("Copying"), 60, "it copies");
    await kubectl(["-n", NAMESPACE, "patch", "inst/vm", "--type=merge", "-p", '{"spec":{"power":"Stopped"}}']);
    expect((await end("power", 60)).status?.phase).toBe("Cancelled");
    await waitFor("inst/vm", "jsonpath={.status.phase}=Stopped", 90, NAMESPACE);
    await kubectl(["-n", NAMESPACE, "patch", "inst/vm", "--type=merge", "-p", '{"spec":{"power":"Running"}}']);
    await waitFor("inst/vm", "condition=Ready", 120, NAMESPACE);
    await statusWithin(probe, address, 60);
  });
});

describe("what cannot be moved says why", () => {
  test("to the node where it is", async () => {
    await apply(migration("here", { target: { node: await nodeOf() } }));
    const { status: now } = await end("here", 30);
    expect(now?.phase).toBe("Failed");
    expect(now?.conditions?.map(({ message }) => message).join(" ")).toMatch(/already|runs on/);
  });

  test("an instance that there is not", async () => {
    await apply(migration("nobody", { instance: "nobody" }));
    await eventually(
      async () => JSON.stringify((await migrationNow("nobody")).status ?? {}).includes("nobody"),
      30,
      "it says so",
    );
    await kubectl(["-n", NAMESPACE, "delete", "dmig/nobody", "--timeout=30s"], { seconds: 40 });
  });

  test("a second move of the same instance waits for the first", async () => {
    // One after the other: two that are made within the same second have no order of their own.
    await apply(migration("one", { policy: { maxBytesPerSecond: "4Mi" } }));
    await eventually(async () => ((await migrationNow("one")).status?.phase ?? "").startsWith("Copying"), 60, "the first copies");
    await apply(migration("two", {}));
    const waits = await eventually(
      async () => {
        const { status: now } = await migrationNow("two");
        return now?.phase === undefined ? undefined : now;
      },
      30,
      "the second says what it waits for",
    );
    expect(waits).toMatchObject({ phase: "Pending", reason: "WaitingForMigration" });
    expect(waits.conditions?.find(({ type }) => type === "Ready")?.message).toBe(
      "waits for the end of the Migration one of the same instance",
    );
    await kubectl(["-n", NAMESPACE, "patch", "dmig/one", "--type=merge", "-p", '{"spec":{"cancel":true}}']);
    expect((await end("one", 30)).status?.phase).toBe("Cancelled");
    expect((await end("two")).status?.phase).toBe("Succeeded");
  });

  test("to a node whose network is away: it waits and says so, the guest runs on; it goes on when that is back", async () => {
    const from = await nodeOf();
    const to = from === "n1" ? "n2" : "n1";
    const before = await status(probe, address);
    const [, pid = ""] = /^(\d+)$/m.exec(await inNode(to, "pgrep", ["-x", "ovn-controller"])) ?? [];
    await inNode(to, "kill", ["-STOP", pid]);
    try {
      await apply(migration("mute", { target: { node: to } }));
      const words = "waiting for OVN to install eth0 on this node";
      await eventually(async () => JSON.stringify((await migrationNow("mute")).status ?? {}).includes(words), 60, "it says so");
      expect((await migrationNow("mute")).status?.handover?.state).toBe("Copying");
      expect((await status(probe, address)).bootId).toBe(before.bootId);
    } finally {
      await inNode(to, "kill", ["-CONT", pid]);
    }
    expect((await end("mute")).status).toMatchObject({ phase: "Succeeded", targetNode: to });
    expect((await statusWithin(probe, address, 30)).bootId).toBe(before.bootId);
    await expectGone(from);
  });
});
