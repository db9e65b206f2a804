/** Guests that write faster than the wire carries, and wires that carry little: what policy makes of it, and what it says. */
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
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
  OBSERVED_NETWORK,
} from "../../hack/kit/guest.ts";
import { apply, eventually, get, images, kubectl, namespaceManifest, networkManifest } from "../../hack/kit/cluster.ts";
import { poolManifest, virtualMachine, waitFor, type GuestReport } from "../../hack/kit/cluster.ts";
import { hold, isHeld, letGo } from "../../hack/kit/checkpoints.ts";
import { cutLink } from "../../hack/kit/link.ts";
import { inNode } from "../../hack/lab/index.ts";
import { isOver } from "../../hack/kit/update.ts";
import type { Probe } from "../../hack/lab/probe.ts";
import { errorText } from "../../kube/errors.ts";

const NAMESPACE = "stalls";
/** MiB of memory that the guest writes over and over, much faster than the limits of these moves. */
const WRITTEN_MIB = 48;
/**
 * MiB/s of a guest that a throttle can slow enough anywhere, and that is meant not to fit without one: the limit of that move lets 18.75 MiB/s
 * of memory through. QEMU leaves the guest a twenty-fifth of its time.
 */
const SLOWABLE = 24;
let probe: Probe;
let address: string;

const migrationNow = (name: string): Promise<Migration> => get<Migration>(`dmig/${name}`, NAMESPACE);
const nodeOf = async (): Promise<string> => (await instance(NAMESPACE, "vm")).status?.nodeName ?? "";
const messageOf = ({ status: now }: Migration, type: string): string =>
  now?.conditions?.find((one) => one.type === type)?.message ?? "";

const begin = (name: string, policy: object): Promise<string> =>
  apply({
    apiVersion: "drover.dev/v1alpha1",
    kind: "Migration",
    metadata: { name, namespace: NAMESPACE },
    spec: { instance: "vm", policy },
  });

/** How a move went, one line for each time that it said something new: what a wait in vain shows. */
const courseLine = ({ status: now }: Migration): string => {
  const { attempt, state } = now?.handover ?? {};
  const { memoryCounters, expectedPauseMs, stalled } = now?.source ?? {};
  return JSON.stringify([now?.phase, now?.reason, attempt, state, memoryCounters, expectedPauseMs, stalled]);
};

const when = async (name: string, what: string, is: (now: Migration) => boolean, seconds = 180): Promise<Migration> => {
  const course = new Set<string>();
  try {
    const now = await eventually(
      async () => {
        const one = await migrationNow(name);
        course.add(courseLine(one));
        return is(one) || isOver(one) ? one : undefined;
      },
      seconds,
      `${name} ${what}`,
    );
    if (!is(now)) throw new Error(`${name} ${what}: it ended without`);
    return now;
  } catch (error) {
    throw new Error(`${errorText(error)}. It went so:\n${[...course].join("\n")}`, { cause: error });
  }
};
const end = (name: string, seconds?: number): Promise<Migration> => when(name, "ends", isOver, seconds);

const eventsOf = async (name: string): Promise<string[]> => {
  const said = ["get", "events", `--field-selector=involvedObject.name=${name}`, "-o", "jsonpath={.items[*].reason}"];
  return (await kubectl(["-n", NAMESPACE, ...said])).split(" ");
};

/**
 * The guest writes its memory at so many MiB/s, over so much of it, and has written as much since before it was asked: of one that wrote
 * faster until then, that tells no more than that it writes.
 */
const dirty = async (mibPerSecond: number, mib: number): Promise<void> => {
  const { dirtiedMib } = await status(probe, address);
  await ask(probe, address, `/dirty/${mibPerSecond}/${mib}`);
  const isWriting = async (): Promise<boolean> => (await status(probe, address)).dirtiedMib >= dirtiedMib + mib;
  await eventually(isWriting, 60, `the guest writes ${mib} MiB of its memory`);
};

/** The guest has lost nothing, and never booted again. */
const expectWhole = async (before: GuestReport): Promise<void> => {
  const after = await statusWithin(probe, address, 30);
  expect(after.bootId).toBe(before.bootId);
  expect(after.lastAcked).toBeGreaterThan(before.lastAcked);
  expect((await checkDisk(await instance(NAMESPACE, "vm"), after.lastAcked)).problem).toBeUndefined();
};

/** It stood still for what the devices need, not until all of its memory had come. */
const expectRanFirst = ({ status: now }: Migration): void => {
  const marks = new Map(now?.source?.timeline?.map(({ mark, ms }) => [mark, ms]));
  expect(marks.get("ran")).toBeLessThan(marks.get("complete") ?? Number.POSITIVE_INFINITY);
};

const expectGone = async (node: string): Promise<void> => {
  const { metadata } = await instance(NAMESPACE, "vm");
  await eventually(async () => (await leftOn(node, metadata.uid)).length === 0, 30, `nothing is left on ${node}`);
};

beforeAll(async () => {
  const { tiny } = await images();
  await apply(namespaceManifest(NAMESPACE), poolManifest("local", "8Gi"));
  for (const node of ["n1", "n2"]) await kubectl(["label", "node", node, "drover-stalls=here", "--overwrite"]);
  await apply(
    networkManifest(NAMESPACE, "net", OBSERVED_NETWORK),
    virtualMachine(NAMESPACE, "vm", {
      image: tiny,
      network: "net",
      spec: { placement: { nodeSelector: { "drover-stalls": "here" } } },
    }),
  );
  await waitFor("inst/vm", "condition=Ready", 180, NAMESPACE);
  address = await addressOf(NAMESPACE, "vm");
  probe = await observer({ node: "n3", namespace: NAMESPACE, network: "net" });
  await statusWithin(probe, address, 60);
  await dirty(400, WRITTEN_MIB);
});

// One that did not end in time does not stand in the next one's way.
afterEach(async () => {
  for (const migration of (await get<{ items: Migration[] }>("dmig", NAMESPACE)).items) {
    if (isOver(migration)) continue;
    await kubectl(["-n", NAMESPACE, "delete", `dmig/${migration.metadata.name}`, "--ignore-not-found", "--timeout=60s"], {
      seconds: 70,
    });
  }
});

afterAll(async () => {
  await eventually(async () => (await probe?.remove(), true), 60, "the observer is removed");
  await kubectl(["delete", "namespace", NAMESPACE, "--timeout=120s"], { seconds: 130 });
  for (const node of ["n1", "n2"]) await kubectl(["label", "node", node, "drover-stalls-"]);
});

describe("a guest that writes faster than the wire", () => {
  test("Abort: the move ends in figures, and the guest stays", async () => {
    const [from, before] = [await nodeOf(), await status(probe, address)];
    await begin("abort", { onStall: "Abort", maxBytesPerSecond: "24Mi", maxPause: "100ms" });
    const { status: now } = await end("abort");
    expect(now).toMatchObject({ phase: "Failed", reason: "NotConverging", handover: { attempt: 1, state: "Source" } });
    expect(messageOf({ status: now } as Migration, "Ready")).toMatch(
      /^the guest writes \S+B\/s of its memory while \S+B\/s are sent: .* left after \d+ passes, a pause of .* where policy\.maxPause allows 100ms; the move is given up \(policy\.onStall is Abort\)$/,
    );
    expect(await nodeOf()).toBe(from);
    await expectWhole(before);
    await expectGone(now?.targetNode ?? "");
  });

  test("Throttle: it is said with figures, its CPUs are slowed until it fits, and it runs at full speed afterwards", async () => {
    const [from, before] = [await nodeOf(), await status(probe, address)];
    await begin("throttle", { onStall: "Throttle", maxBytesPerSecond: "24Mi", maxPause: "500ms" });
    const stalled = await when("throttle", "stalls", (now) => now.status?.source?.stalled !== undefined);
    expect(stalled.status?.source?.stalled).toMatch(
      /^the guest writes .* of its memory while .* are sent: .*; its CPUs are slowed/,
    );
    await when("throttle", "is slowed", (now) => now.status?.source?.memoryCounters?.throttlePercent !== undefined);
    await dirty(SLOWABLE, WRITTEN_MIB);
    // Less than the whole test may take, so that a wait in vain says where the move stood.
    const now = await end("throttle", 240);
    expect(now.status).toMatchObject({ phase: "Succeeded", sourceNode: from });
    expect(messageOf(now, "Stalled")).not.toContain("its CPUs are slowed");
    expect(await eventsOf("throttle")).toContain("Stalled");
    await expectWhole(before);
    await expectGone(from);
  });

  test("PostCopy: it goes on at the target before all its memory is there", async () => {
    const [from, before] = [await nodeOf(), await status(probe, address)];
    await dirty(400, WRITTEN_MIB);
    await begin("post-copy", { onStall: "PostCopy", maxBytesPerSecond: "24Mi", maxPause: "100ms" });
    const now = await end("post-copy");
    expect(now.status).toMatchObject({ phase: "Succeeded", sourceNode: from, handover: { attempt: 1, state: "Done" } });
    expectRanFirst(now);
    expect(await eventsOf("post-copy")).toContain("Stalled");
    await expectWhole(before);
    await expectGone(from);
  });

  test("PostCopy: a guest that began to write when it might be stopped already goes on at the target all the same", async () => {
    const [from, before] = [await nodeOf(), await status(probe, address)];
    await ask(probe, address, "/dirty/0/0");
    await hold(from, "source", "allow-pause");
    try {
      // The limit is that of what follows after the pause: without one all may be there before the guest runs.
      await begin("late-writer", { onStall: "PostCopy", maxBytesPerSecond: "64Mi", maxPause: "100ms" });
      await isHeld(from, "source", "allow-pause");
      await dirty(1_000, 128);
    } finally {
      await letGo(from);
    }
    const now = await end("late-writer");
    expect(now.status).toMatchObject({ phase: "Succeeded", sourceNode: from, handover: { attempt: 1, state: "Done" } });
    expectRanFirst(now);
    expect(await eventsOf("late-writer")).toContain("Stalled");
    await expectWhole(before);
    await expectGone(from);
  });

  test("PostCopy over a link that breaks: the guest waits for the pages that it lacks, and goes on when the link is back", async () => {
    const [from, before] = [await nodeOf(), await status(probe, address)];
    await dirty(400, 128);
    await begin("broken", { onStall: "PostCopy", maxBytesPerSecond: "24Mi", maxPause: "100ms" });
    const halves = await when("broken", "runs at the target", ({ status: now }) => now?.handover?.state === "Target");
    const to = halves.status?.targetNode ?? "";
    const undo = [await cutLink(from, to), await cutLink(to, from)];
    try {
      const told = await when(
        "broken",
        "says so",
        (now) => messageOf(now, "Ready").includes("the link between the nodes broke"),
        60,
      );
      expect(told.status).toMatchObject({ phase: "SwitchingOver", handover: { state: "Target" } });
    } finally {
      for (const one of undo) await one();
    }
    const now = await end("broken");
    expect(now.status).toMatchObject({
      phase: "Succeeded",
      sourceNode: from,
      targetNode: to,
      handover: { attempt: 1, state: "Done" },
    });
    await expectWhole(before);
    await expectGone(from);
  });
});

describe("a wire that carries little", () => {
  test("the time is over while the disks are still copied: the move ends, and the guest stays", async () => {
    const [from, before] = [await nodeOf(), await status(probe, address)];
    await begin("late", { timeout: "10s", maxBytesPerSecond: "1Mi" });
    const now = await end("late", 60);
    expect(now.status).toMatchObject({ phase: "Failed", reason: "TimedOut" });
    expect(messageOf(now, "Ready")).toBe("copying took longer than policy.timeout (10s)");
    expect(await nodeOf()).toBe(from);
    await expectWhole(before);
    await expectGone(now.status?.targetNode ?? "");
  });

  test("disks and memory together take no more than the limit", async () => {
    const from = await nodeOf();
    await dirty(1, 4);
    const sent = async () => ({
      bytes: Number(await inNode(from, "cat", ["/sys/class/net/eth0/statistics/tx_bytes"])),
      at: performance.now(),
    });
    await begin("limited", { maxBytesPerSecond: "8Mi" });
    await when("limited", "copies", ({ status: now }) => now?.phase === "CopyingDisk");
    const first = await sent();
    await when("limited", "copies memory", ({ status: now }) => (now?.source?.memoryCounters?.doneBytes ?? 0) > 0);
    const last = await sent();
    const rate = ((last.bytes - first.bytes) / (last.at - first.at)) * 1_000;
    // Headers, the API, the tunnels of others: a quarter more is a limit that holds.
    expect(rate).toBeLessThan(10 * 2 ** 20);
    await kubectl(["-n", NAMESPACE, "patch", "dmig/limited", "--type=merge", "-p", '{"spec":{"cancel":true}}']);
    await end("limited");
  });
});
