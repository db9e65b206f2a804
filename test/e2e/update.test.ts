/** A new QEMU under running guests, by two real runtimes: up and down, under load, with the agent killed in the middle, and rolled out. */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { Host } from "../../crds/host.ts";
import type { Migration } from "../../crds/migration.ts";
import type { Rollout } from "../../crds/rollout.ts";
import type { Condition } from "../../crds/schema.ts";
import { forgetTraces, readTraces, watchTraces } from "../../hack/chaos/traces.ts";
import { mostRunning, runningNow } from "../../hack/chaos/verdict.ts";
import { hold, isHeld, killAgent, letGo } from "../../hack/kit/checkpoints.ts";
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
import {
  addressOf,
  ask,
  checkDisk,
  instance,
  observer,
  processOf,
  status,
  statusWithin,
  whileEchoing,
  OBSERVED_NETWORK,
} from "../../hack/kit/guest.ts";
import { fillClaim, limitOf, roomIn } from "../../hack/kit/claim-memory.ts";
import { portOptions } from "../../hack/kit/northbound.ts";
import { beginUpdate, endOf, heldBy, runtimeAfter, runtimeDirectories, runtimesOf } from "../../hack/kit/update.ts";
import { upgradeDrover } from "../../hack/kit/upgrade.ts";
import { inNode } from "../../hack/lab/index.ts";
import { thisLab } from "../../hack/lab/identity.ts";
import { bringOtherRuntime } from "../../hack/lab/other-runtime.ts";
import type { Probe } from "../../hack/lab/probe.ts";
import { makeProgress } from "../../hack/lab/progress.ts";

const NAMESPACE = "updates";
const NODE = "n1";
const NODES = ["n1", "n2", "n3"];
const NAMES = ["vm", "beside", "away"];
/** Of the nodes that `away` may run on. */
const LABEL = "drover-updates";
let probe: Probe;
let address: string;
let older: string;
let newer: string;

const vm = () => instance(NAMESPACE, "vm");
const conditionOf = async (name: string): Promise<Condition | undefined> =>
  (await instance(NAMESPACE, name)).status?.conditions?.find(({ type }) => type === "RuntimeCurrent");
const migrationNow = (name: string): Promise<Migration> => get<Migration>(`dmig/${name}`, NAMESPACE);
const wordsOf = ({ status: now }: Migration): string => now?.conditions?.find(({ type }) => type === "Ready")?.message ?? "";
const runtimeOf = async (name: string): Promise<string | undefined> =>
  (await instance(NAMESPACE, name)).status?.guest?.runtimeVersion;
const hostOf = async (node: string) => (await get<Host>(`dhost/${node}`)).status;
/** The other runtime than the one that the guest runs in. */
const other = async (): Promise<string> => ((await runtimeOf("vm")) === newer ? older : newer);

/** Where the sockets are that carry the guest's descriptors: who may look in. */
const socketDirectories = async (): Promise<string[]> => {
  const { uid } = (await vm()).metadata;
  const script = 'find /var/lib/drover/instances/"$0" -name sockets -exec stat -c "%a" {} +; true';
  return (await inNode(NODE, "sh", ["-c", script, uid])).split("\n").filter((line) => line !== "");
};

/** Same boot, no record lost, and it goes on writing. */
const expectSame = async (before: GuestReport): Promise<void> => {
  const after = await statusWithin(probe, address, 30);
  expect(after.bootId).toBe(before.bootId);
  await eventually(async () => (await status(probe, address)).lastAcked > after.lastAcked, 20, "it goes on writing");
  const { problem } = await checkDisk(await vm(), Math.max(before.lastAcked, after.lastAcked));
  expect(problem).toBeUndefined();
};

const move = (instanceName: string, name: string, spec: object) =>
  apply({
    apiVersion: "drover.dev/v1alpha1",
    kind: "Migration",
    metadata: { name, namespace: NAMESPACE },
    spec: { instance: instanceName, ...spec },
  });
/** Moves leave traces in a QEMU that an update must not stumble over. */
const moveToOther = async (): Promise<void> => {
  await kubectl(["label", "node", "n3", `${LABEL}=here`, "--overwrite"]);
  await move("away", "moves", {});
  expect((await endOf(NAMESPACE, "moves")).status).toMatchObject({ phase: "Succeeded", targetNode: "n3" });
};
const again = async (name: string, runtime: string): Promise<Migration> => {
  await beginUpdate(NAMESPACE, "vm", name, { runtime });
  return endOf(NAMESPACE, name);
};

beforeAll(async () => {
  const image = await bringOtherRuntime(thisLab(), makeProgress());
  const { tiny } = await images();
  await kubectl(["label", "node", "n2", `${LABEL}=here`, "--overwrite"]);
  await apply(namespaceManifest(NAMESPACE));
  await apply(
    poolManifest("local", "8Gi"),
    networkManifest(NAMESPACE, "net", OBSERVED_NETWORK),
    ...["vm", "beside"].map((name) => virtualMachine(NAMESPACE, name, { image: tiny, node: NODE, network: "net" })),
    virtualMachine(NAMESPACE, "away", {
      image: tiny,
      network: "net",
      spec: { placement: { nodeSelector: { [LABEL]: "here" } } },
    }),
  );
  for (const name of NAMES) await waitFor(`inst/${name}`, "condition=Ready", 180, NAMESPACE);
  older = (await runtimeOf("vm")) ?? "";
  address = await addressOf(NAMESPACE, "vm");
  probe = await observer({ node: "n3", namespace: NAMESPACE, network: "net" });
  await statusWithin(probe, address, 60);
  await moveToOther();
  await upgradeDrover({ "image.runtime": image });
  newer = await runtimeAfter(NODES, older);
});

afterAll(async () => {
  for (const node of NODES) await letGo(node);
  await eventually(async () => (await probe?.remove(), true), 60, "the observer is removed");
  await kubectl(["delete", "namespace", NAMESPACE, "--timeout=120s"], { seconds: 130 });
  await kubectl(["label", "node", "n2", "n3", `${LABEL}-`]);
  await upgradeDrover({ "image.runtime": "", "runtimeUpdate.mode": "Manual" });
});

describe("a new runtime beside the old one", () => {
  test("nodes and instances say so, and nothing else happens", async () => {
    expect(newer).not.toBe(older);
    expect(await runtimeDirectories(NODE)).toEqual(expect.arrayContaining([older, newer]));
    const { current, others } = await runtimesOf(NODE);
    expect(current).toMatchObject({ version: newer, instances: 0 });
    expect(others).toContainEqual(expect.objectContaining({ version: older, instances: 2 }));
    expect((await hostOf(NODE))?.updated).toBe("0/2");
    for (const name of NAMES) {
      const outdated = await eventually(
        async () => {
          const now = await conditionOf(name);
          return now?.status === "False" ? now : undefined;
        },
        30,
        `${name} is outdated`,
      );
      expect(outdated).toMatchObject({ reason: "Outdated" });
      expect(outdated.message).toContain(older);
      expect(outdated.message).toContain(newer);
      expect(await runtimeOf(name)).toBe(older);
    }
    expect(await kubectl(["-n", NAMESPACE, "get", "inst", "-o", "wide"])).toContain(older);
    expect(await kubectl(["-n", NAMESPACE, "get", "dmig", "-o", "name"])).toBe("migration.drover.dev/moves");
  });
});

describe("an update in place", () => {
  test.each(["up", "down"])("%s, while the guest writes to disk and memory: it goes on in another QEMU", async (way) => {
    const to = await other();
    const before = await vm();
    const [was, process, held] = [await status(probe, address), await processOf(before), await heldBy(before)];
    await ask(probe, address, "/dirty/50/48");
    const { silenceMs, result } = await whileEchoing(probe, address, async () => {
      await beginUpdate(NAMESPACE, "vm", way, way === "up" ? {} : { runtime: to });
      return endOf(NAMESPACE, way);
    });
    await ask(probe, address, "/dirty/0/0");
    expect(result.status).toMatchObject({ phase: "Succeeded", sourceNode: NODE, targetNode: NODE });
    expect(result.status?.runtime?.to.version).toBe(to);
    expect(result.status?.source?.pauseMs).toBeGreaterThan(0);
    expect(silenceMs).toBeLessThan(2000);
    await expectSame(was);
    const after = await vm();
    expect(await processOf(after)).not.toBe(process);
    expect(after.status?.guest).toMatchObject({
      state: "Running",
      runtimeVersion: to,
      claimUid: before.status?.guest?.claimUid,
      agentConnected: true,
    });
    expect(after.status?.claim).toEqual(before.status?.claim);
    expect(after.status?.nics).toEqual(before.status?.nics);
    expect((await heldBy(after)).tapIndex).toBe(held.tapIndex);
    expect(await portOptions(after.status?.nics?.[0]?.port ?? "")).toEqual({ chassis: NODE, strategy: "" });
    const current = way === "up" ? "True" : "False";
    await eventually(async () => (await conditionOf("vm"))?.status === current, 20, `RuntimeCurrent is ${current}`);
    await eventually(
      async () => (await hostOf(NODE))?.updated === (way === "up" ? "1/2" : "0/2"),
      // The agent tells figures alone every 30 s.
      45,
      "the node counts those that are updated",
    );
  });

  test("it tells what a user wants to know", async () => {
    const [head = "", row = ""] = (await kubectl(["-n", NAMESPACE, "get", "dmig", "up"])).split("\n");
    expect(head.split(/\s+/)).toEqual(["NAME", "INSTANCE", "FROM", "TO", "PHASE", "PROGRESS", "PAUSE", "AGE"]);
    expect(row).toMatch(new RegExp(`^up +vm +${NODE} +${NODE} +Succeeded +100% +\\d+ms +\\S+$`));
    const { lastMigration } = (await vm()).status ?? {};
    expect(lastMigration).toMatchObject({ name: "down", phase: "Succeeded", from: NODE, to: NODE });
    await beginUpdate(NAMESPACE, "vm", "nowhere", { runtime: "none-such" });
    const refused = await endOf(NAMESPACE, "nowhere", 30);
    expect(refused.status).toMatchObject({ phase: "Failed", reason: "RuntimeNotFound" });
    expect(wordsOf(refused)).toContain(newer);
  });

  test("ten in a row leave nothing: no process, descriptor, socket, mount, link, file or memory", async () => {
    const was = await status(probe, address);
    // What the first two leave warm is there from then on.
    const before = await heldBy(await vm());
    for (let count = 1; count <= 10; count++) {
      const version = await other();
      const { status: now } = await again(`row-${count}`, version);
      expect(now).toMatchObject({ phase: "Succeeded", reason: "Updated", runtime: { to: { version } } });
    }
    await expectSame(was);
    const { memoryMib: memoryBefore, ...countsBefore } = before;
    const after = await eventually(
      async () => {
        const now = await heldBy(await vm());
        return now.processes === 1 && now.nodeMounts <= before.nodeMounts ? now : undefined;
      },
      20,
      "one QEMU is left",
    );
    const { memoryMib, ...counts } = after;
    expect(counts).toEqual(countsBefore);
    expect(memoryMib - memoryBefore).toBeLessThan(48);
  });
});

describe("one at a time", () => {
  const waits = async (name: string, for_: string): Promise<void> => {
    const pending = await eventually(
      async () => {
        const now = await migrationNow(name);
        return now.status?.phase === "Pending" && now.status.reason === "WaitingForMigration" ? now : undefined;
      },
      30,
      `${name} waits`,
    );
    expect(wordsOf(pending)).toBe(`waits for the end of the Migration ${for_} of the same instance`);
  };
  const cancel = (name: string) =>
    kubectl(["-n", NAMESPACE, "patch", `dmig/${name}`, "--type=merge", "-p", '{"spec":{"cancel":true}}']);

  test("an update waits for a move of the same instance, and is made when that has ended", async () => {
    await move("away", "copying", { policy: { maxBytesPerSecond: "2Mi" } });
    await eventually(async () => ((await migrationNow("copying")).status?.phase ?? "").startsWith("Copying"), 60, "it copies");
    await beginUpdate(NAMESPACE, "away", "after-it");
    await waits("after-it", "copying");
    await cancel("copying");
    expect((await endOf(NAMESPACE, "copying")).status?.phase).toBe("Cancelled");
    expect((await endOf(NAMESPACE, "after-it")).status?.phase).toBe("Succeeded");
    expect(await runtimeOf("away")).toBe(newer);
  });

  test("a guest that has moved, and was updated where it came to, moves on", async () => {
    await move("away", "moves-on", {});
    expect((await endOf(NAMESPACE, "moves-on")).status).toMatchObject({ phase: "Succeeded", sourceNode: "n3", targetNode: "n2" });
    expect((await instance(NAMESPACE, "away")).status?.guest).toMatchObject({ state: "Running", runtimeVersion: newer });
  });

  test("a move waits for an update; one that is cancelled before the guest stops leaves the old QEMU", async () => {
    const process = await processOf(await instance(NAMESPACE, "beside"));
    await hold(NODE, "update", "prepare");
    await beginUpdate(NAMESPACE, "beside", "held");
    await isHeld(NODE, "update", "prepare");
    await move("beside", "behind-it", {});
    await waits("behind-it", "held");
    await cancel("behind-it");
    await cancel("held");
    await letGo(NODE);
    expect((await endOf(NAMESPACE, "held")).status?.phase).toBe("Cancelled");
    const after = await instance(NAMESPACE, "beside");
    expect(await processOf(after)).toBe(process);
    expect((await heldBy(after)).processes).toBe(1);
    expect(after.status?.guest).toMatchObject({ state: "Running", runtimeVersion: older });
  });
});

describe("a claim without room for a second QEMU", () => {
  const MIB = 2 ** 20;
  const quota = {
    apiVersion: "v1",
    kind: "ResourceQuota",
    metadata: { name: "full", namespace: NAMESPACE },
    spec: { hard: { "limits.memory": "1Mi" } },
  };

  test("grows while the guest runs, and is left as it was where that is not allowed", async () => {
    const to = await other();
    const [was, process, before] = [await status(probe, address), await processOf(await vm()), await limitOf(await vm())];
    const away = await fillClaim(await vm(), 45);
    try {
      await eventually(async () => (await roomIn(await vm())) < 60 * MIB, 30, "the claim is nearly full");
      await apply(quota);
      await eventually(
        async () => (await get<{ status?: { used?: object } }>("quota/full", NAMESPACE)).status?.used !== undefined,
        30,
        "the quota counts",
      );
      const refused = await again("no-room", to);
      expect(refused.status).toMatchObject({ phase: "Failed", reason: "NoRoomInClaim" });
      expect(wordsOf(refused)).toMatch(
        /a second QEMU needs 64 MiB in the claim .* the claim could not be given more: .*exceeded quota/,
      );
      expect(await limitOf(await vm())).toBe(before);
      expect(await processOf(await vm())).toBe(process);
      await kubectl(["-n", NAMESPACE, "delete", "quota/full"]);
      const grown = await again("more-room", to);
      expect({ ...grown.status, words: wordsOf(grown) }).toMatchObject({
        phase: "Succeeded",
        retries: 1,
        claimGrowth: { attempt: 1, fromBytes: before, toBytes: before + 64 * MIB },
      });
    } finally {
      await away();
      await kubectl(["-n", NAMESPACE, "delete", "quota/full", "--ignore-not-found"]);
    }
    expect(await limitOf(await vm())).toBe(before + 64 * MIB);
    expect(await runtimeOf("vm")).toBe(to);
    expect((await vm()).status?.guest?.claimUid).toBe((await migrationNow("more-room")).status?.sourceClaim?.uid);
    await expectSame(was);
  });
});

describe("something dies in the middle", () => {
  /** An update that is held before a step, and struck there. By the word of the QEMUs themselves never two of them run, and one does in the end. */
  const struck = async (name: string, step: string, strike: () => Promise<unknown>): Promise<Migration> => {
    const { uid } = (await vm()).metadata;
    const was = await statusWithin(probe, address, 30);
    await forgetTraces();
    const traces = watchTraces(uid);
    await hold(NODE, "update", step);
    await beginUpdate(NAMESPACE, "vm", name, { runtime: await other() });
    await isHeld(NODE, "update", step);
    expect(await socketDirectories()).toEqual(["700"]);
    await strike();
    const ended = await endOf(NAMESPACE, name, 120);
    await waitFor("inst/vm", "condition=Ready", 60, NAMESPACE);
    await expectSame(was);
    await eventually(async () => (await heldBy(await vm())).processes === 1, 30, "one QEMU is left");
    await traces.stop();
    const changes = await readTraces(uid);
    expect(mostRunning(changes)).toBe(1);
    expect(runningNow(changes).length).toBe(1);
    expect(await socketDirectories()).toEqual([]);
    return ended;
  };

  test.each(["switch", "note", "run", "write-done"])(
    "the node's agent before %s: the guest goes on in the new one",
    async (step) => {
      const to = await other();
      const ended = await struck(`killed-${step}`, step, () => killAgent(NODE));
      expect({ phase: ended.status?.phase, words: wordsOf(ended) }).toMatchObject({ phase: "Succeeded" });
      expect(await runtimeOf("vm")).toBe(to);
    },
  );

  /** Kills the older or the newer of the two QEMUs, and lets the agent go on. */
  const killOne = async (which: "old" | "new"): Promise<void> => {
    const script = 'kill -KILL "$(pgrep "$1" -f "^/usr/bin/qemu-system-x86_64 -name guest=$0,")"';
    await inNode(NODE, "sh", ["-c", script, `${NAMESPACE}/vm`, which === "old" ? "-o" : "-n"]);
    await letGo(NODE);
  };

  test.each([
    ["waits", "switch"],
    ["has all of the guest, which stands still", "note"],
  ])("the new QEMU while it %s: the guest stays in the old one, and the next try works", async (_, step) => {
    const to = await other();
    const ended = await struck(`young-${step}`, step, () => killOne("new"));
    // A failure that can pass is tried again by itself.
    const next = ended.status?.phase === "Succeeded" ? ended : await again(`young-${step}-again`, to);
    expect(next.status).toMatchObject({ phase: "Succeeded" });
    expect(await runtimeOf("vm")).toBe(to);
  });

  test("the old QEMU once the guest is noted as the new one's: it goes on there", async () => {
    const to = await other();
    const ended = await struck("old", "run", () => killOne("old"));
    expect({ phase: ended.status?.phase, words: wordsOf(ended) }).toMatchObject({ phase: "Succeeded" });
    expect(await runtimeOf("vm")).toBe(to);
  });
});

describe("rolled out by itself", () => {
  test("all instances of the cluster, as far as it says, and then it is complete", async () => {
    const was = await statusWithin(probe, address, 30);
    if ((await runtimeOf("vm")) === newer) await again("back", older);
    const waiting = await get<Rollout>(`drollout/${newer.toLowerCase()}`);
    expect(waiting.status).toMatchObject({ phase: "Waiting", progress: "1/3" });
    await upgradeDrover({ "runtimeUpdate.mode": "Auto", "runtimeUpdate.perNode": 1 });
    const complete = await eventually(
      async () => {
        const now = await get<Rollout>(`drollout/${newer.toLowerCase()}`);
        return now.status?.phase === "Complete" ? now : undefined;
      },
      90,
      "the roll-out is complete",
    );
    expect(complete.status).toMatchObject({ progress: "3/3", updated: 3, total: 3 });
    expect(await kubectl(["get", "drollout"])).toMatch(new RegExp(`${newer.toLowerCase()} +Complete +3/3`));
    for (const name of NAMES) {
      expect(await runtimeOf(name)).toBe(newer);
      expect(await conditionOf(name)).toMatchObject({ status: "True", reason: "Current" });
    }
    await expectSame(was);
  });

  test("the power button, and the console, are those of the guest after all this", async () => {
    const { uid } = (await vm()).metadata;
    const file = `/var/lib/drover/instances/${uid}/vm/console.log`;
    const before = await inNode(NODE, "cat", [file]);
    expect(before).toContain("GUEST up");
    await kubectl(["-n", NAMESPACE, "patch", "inst/vm", "--type=merge", "-p", '{"spec":{"power":"Stopped"}}']);
    await waitFor("inst/vm", "jsonpath={.status.phase}=Stopped", 90, NAMESPACE);
    const after = await inNode(NODE, "cat", [file]);
    expect(after.startsWith(before)).toBe(true);
    expect(after.slice(before.length)).toContain("Power down");
  });
});
