/**
 * Both agents of a move as processes of their own against a real API server, with QEMUs that are only remembered: each agent is killed
 * right before each of its steps, and the next one has to find its way from notes, record and QEMU.
 */
import { randomUUID } from "node:crypto";
import { existsSync, mkdirSync, rmSync, writeFileSync } from "node:fs";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { createServer, type AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { execa, type ResultPromise } from "execa";
import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from "vitest";
import type { Migration, MigrationStatus } from "../../crds/migration.ts";
import { migrations } from "../../crds/resources.ts";
import { Informer, KubeClient } from "../../kube/index.ts";
import { installChart, instance, type Installed } from "./chart-kit.ts";
import { cpusOf, FakeMachine, givenUpOn, leftOn, pingsOf } from "./support/fake-machine.ts";
import { TestAuthority } from "./support/node-certificates.ts";

type Side = "source" | "target";
const NODE = { source: "n1", target: "n2" } as const;
const NS = "default";

let installed: Installed;
let authority: TestAuthority;
let client: KubeClient;
let directory: string;
let seen: Informer<Migration>;
const stop = new AbortController();
const ports = { source: 0, target: 0 };
const agents = new Map<Side, ResultPromise>();

beforeAll(async () => {
  [installed, authority, directory] = await Promise.all([
    installChart(),
    TestAuthority.make(),
    mkdtemp(join(tmpdir(), "drover-moves-")),
  ]);
  await installed.kubectl.accepted(["apply", "-f", "-"], {
    apiVersion: "v1",
    kind: "ServiceAccount",
    metadata: { name: "default" },
  });
  client = KubeClient.fromKubeconfig(await readFile(installed.plane.kubeconfig, "utf8"));
  for (const side of ["source", "target"] as const) {
    await writeFile(join(directory, `identity-${NODE[side]}.json`), JSON.stringify(await authority.issue(NODE[side])));
    ports[side] = await freePort();
  }
  seen = new Informer(client, migrations);
  seen.start(stop.signal);
  await seen.synced;
});
afterAll(async () => {
  stop.abort();
  for (const side of agents.keys()) await kill(side);
  await installed?.stop();
  await Promise.all([authority?.remove(), rm(directory, { recursive: true, force: true })]);
});
afterEach(async () => {
  for (const side of ["source", "target"] as const) {
    rmSync(join(directory, `checkpoints-${NODE[side]}`), { recursive: true, force: true });
    rmSync(join(directory, `full-${NODE[side]}`), { force: true });
    if (agents.has(side)) await kill(side);
  }
});

const freePort = (): Promise<number> =>
  new Promise((resolve) => {
    const server = createServer().listen(0, "127.0.0.1", () => {
      const { port } = server.address() as AddressInfo;
      server.close(() => resolve(port));
    });
  });

function start(side: Side): void {
  const script = join(import.meta.dirname, "support/move-agent.ts");
  const child = execa(process.execPath, [script, directory, NODE[side], String(ports[side])], {
    env: { KUBECONFIG: installed.plane.kubeconfig, LOG_LEVEL: process.env["LOG_LEVEL"] ?? "silent" },
    stdio: ["ignore", "inherit", "inherit"],
    reject: false,
  });
  agents.set(side, child);
}

async function kill(side: Side, signal: "SIGKILL" | "SIGTERM" = "SIGKILL"): Promise<void> {
  const child = agents.get(side);
  agents.delete(side);
  child?.kill(signal);
  await child;
}

const hold = (side: Side, step: string): string => {
  const place = join(directory, `checkpoints-${NODE[side]}`);
  rmSync(place, { recursive: true, force: true });
  const file = join(place, `${side}.${step}.hold`);
  mkdirSync(place, { recursive: true });
  writeFileSync(file, "");
  return file;
};
const reached = (side: Side, step: string): Promise<void> =>
  vi.waitFor(() => expect(existsSync(join(directory, `checkpoints-${NODE[side]}`, `${side}.${step}.reached`))).toBe(true), {
    timeout: 20_000,
    interval: 20,
  });

interface Move {
  name: string;
  uid: string;
  status: () => MigrationStatus;
}

/** What the operator does until both agents begin: an Instance that runs on n1, and a Migration of it with its record. */
async function begin(name: string, over: Partial<MigrationStatus> = {}, { holder = true } = {}): Promise<Move> {
  const { kubectl } = installed;
  const claim = await makeClaim(name, holder);
  await kubectl.accepted(["apply", "-f", "-"], { ...instance, metadata: { name } });
  const uid = (await kubectl.accepted(["get", "instance", name, "-o", "jsonpath={.metadata.uid}"])).trim();
  const nics = [{ name: "eth0", network: "blue", mac: "52:54:00:00:00:01", ipv4: "10.1.0.5", port: "p", mtu: 1442 }];
  await patch("instance", name, {
    nodeName: "n1",
    claim: { name: `drover-${name}-1`, serial: 1, uid: "claim-1", node: "n1" },
    nics,
    guest: { state: "Running", claimUid: "claim-1", machineType: "pc-q35-10.0", cpuModel: "qemu64", accelerator: "TCG" },
  });
  new FakeMachine(directory, "n1").boot(uid);
  await kubectl.accepted(["apply", "-f", "-"], {
    apiVersion: "drover.dev/v1alpha1",
    kind: "Migration",
    metadata: { name },
    spec: { instance: name },
  });
  await patch("migration", name, {
    phase: "Preparing",
    instanceUid: uid,
    sourceNode: "n1",
    targetNode: "n2",
    sourceClaim: { name: `drover-${name}-1`, uid: "claim-1" },
    targetClaim: { name: `drover-${name}-2`, uid: claim },
    disks: [{ name: "root", sourcePool: "fast", targetPool: "fast", sizeBytes: 1024, copy: true }],
    policy: { maxPauseMs: 300, onStall: "Throttle", timeoutMs: 600_000, tls: true },
    handover: { attempt: 1, state: "Copying" },
    ...over,
  });
  return { name, uid, status: () => seen.get({ namespace: NS, name })?.status ?? {} };
}

/** The claim at the target, with or without a holder that runs; gives its uid. */
async function makeClaim(name: string, holder: boolean): Promise<string> {
  const { kubectl } = installed;
  const pod = `drover-${name}-2`;
  const spec = { nodeName: NODE.target, automountServiceAccountToken: false, containers: [{ name: "holder", image: "none" }] };
  await kubectl.accepted(["apply", "-f", "-"], { apiVersion: "v1", kind: "Pod", metadata: { name: pod }, spec });
  if (holder) await patch("pod", pod, RUNNING);
  return (await kubectl.accepted(["get", "pod", pod, "-o", "jsonpath={.metadata.uid}"])).trim();
}

const RUNNING = {
  phase: "Running",
  containerStatuses: [{ name: "holder", image: "none", imageID: "none", ready: true, restartCount: 0 }],
};

const patch = (kind: string, name: string, status: object): Promise<string> =>
  installed.kubectl.accepted(["patch", kind, name, "--subresource=status", "--type=merge", "-p", JSON.stringify({ status })]);

/** Both sides have said their last word; at Done the operator names the new place in between. */
async function ended(move: Move): Promise<"Done" | "Source"> {
  const within = { timeout: 60_000, interval: 50 };
  const state = await vi.waitFor(() => {
    const now = move.status().handover?.state;
    if (now !== "Done" && now !== "Source") throw new Error(`the record says ${now}; ${JSON.stringify(move.status())}`);
    return now;
  }, within);
  if (state === "Done")
    await patch("instance", move.name, {
      nodeName: "n2",
      claim: { name: "c2", serial: 2, uid: move.status().targetClaim?.uid, node: "n2" },
    });
  const last = state === "Done" ? ["Released", "Running"] : ["GivenUp", "Released"];
  await vi.waitFor(() => {
    const { source, target } = move.status();
    expect([source?.state, target?.state]).toEqual(last);
  }, within);
  const places = state === "Done" ? ["n1"] : ["n2"];
  await vi.waitFor(() => {
    expect(places.flatMap((node) => leftOn(directory, node, move.uid))).toEqual([]);
    const notes = ["n1", "n2"].flatMap((node) => leftOn(directory, node, move.uid)).filter((path) => path.includes("moves"));
    expect(notes).toEqual([]);
  }, within);
  return state;
}

test("a move, undisturbed", async () => {
  const move = await begin("calm");
  start("source");
  start("target");
  expect(await ended(move)).toBe("Done");
  expect(cpusOf(directory, move.uid)).toEqual({ now: ["n2"], most: 1 });
  const { source } = move.status();
  expect(source).toMatchObject({ attempt: 1, state: "Released", progress: "100%", qemuDowntimeMs: 12 });
  expect(source?.pauseMs).toBeGreaterThan(0);
  expect(source?.timeline?.map(({ mark }) => mark)).toEqual(expect.arrayContaining(["gone-noted", "go-sent", "ran"]));
});

test("the guest is copied while its claim's holder starts, and comes when that runs", async () => {
  const move = await begin("early", {}, { holder: false });
  start("source");
  start("target");
  const within = { timeout: 20_000, interval: 50 };
  await vi.waitFor(() => expect(move.status().source?.state).toBe("CopyingMemory"), within);
  await vi.waitFor(() => expect(move.status().target?.message).toContain("holder of its claim"), within);
  // by itself the source would go on at its next look
  await new Promise((resolve) => setTimeout(resolve, 1_500));
  expect(move.status().handover?.state).toBe("Copying");
  expect(cpusOf(directory, move.uid)).toEqual({ now: ["n1"], most: 1 });
  // also after the target's agent was replaced, which has to be told anew
  await kill("target");
  start("target");
  await patch("pod", "drover-early-2", RUNNING);
  expect(await ended(move)).toBe("Done");
  expect(move.status().target?.message).toBeUndefined();
});

/** Where a move may end that lost an agent right there. */
const STEPS: Record<Side, Record<string, "Done" | "Source">> = {
  source: {
    connect: "Done",
    "copy-disks": "Done",
    "copy-memory": "Source",
    "write-handover": "Done",
    "allow-pause": "Done",
    held: "Done",
    complete: "Done",
    go: "Done",
    ran: "Done",
    release: "Done",
  },
  target: {
    prepare: "Done",
    receive: "Done",
    ready: "Done",
    "note-ran": "Done",
    resume: "Done",
    "write-done": "Done",
  },
};

describe.each(["source", "target"] as const)("the %s's agent is killed before", (side) => {
  test.each(Object.entries(STEPS[side]))("%s: %s", async (step, outcome) => {
    const file = hold(side, step);
    const move = await begin(`${side}-${step}`);
    start("source");
    start("target");
    await reached(side, step);
    await kill(side);
    rmSync(file);
    start(side);
    const end = await ended(move);
    expect(end).toBe(outcome);
    expect(cpusOf(directory, move.uid)).toEqual({ now: [end === "Done" ? "n2" : "n1"], most: 1 });
    const progress = end === "Done" ? move.status().source?.progress : "100%";
    expect(progress).toBe("100%");
  });
});

describe.each([
  ["source", "copy-memory"],
  ["source", "held"],
  ["source", "go"],
  ["target", "note-ran"],
] as const)("both agents are killed before the %s's %s", (side, step) => {
  test("and find their way", async () => {
    const file = hold(side, step);
    const move = await begin(`both-${side}-${step}`);
    start("source");
    start("target");
    await reached(side, step);
    await Promise.all([kill("source"), kill("target")]);
    rmSync(file);
    start("source");
    start("target");
    const end = await ended(move);
    expect(cpusOf(directory, move.uid)).toEqual({ now: [end === "Done" ? "n2" : "n1"], most: 1 });
  });
});

test("the guest is asked for a sign of life where it came to, once in each life of the agent there", async () => {
  const calm = await begin("asked");
  start("source");
  start("target");
  expect(await ended(calm)).toBe("Done");
  expect(pingsOf(directory, calm.uid)).toEqual(["n2"]);
  // whoever died may have left an answer under way, and a guest agent that waits for somebody to take it
  const file = hold("target", "write-done");
  const move = await begin("asked-again");
  await reached("target", "write-done");
  await kill("target");
  rmSync(file);
  start("target");
  expect(await ended(move)).toBe("Done");
  expect(pingsOf(directory, move.uid)).toEqual(["n2", "n2"]);
});

test("an agent that is told to end lets the move go on in the next one", async () => {
  const file = hold("source", "write-handover");
  const move = await begin("upgrade");
  start("source");
  start("target");
  await reached("source", "write-handover");
  rmSync(file);
  await Promise.all([kill("source", "SIGTERM"), kill("target", "SIGTERM")]);
  start("source");
  start("target");
  expect(await ended(move)).toBe("Done");
  expect(cpusOf(directory, move.uid)).toEqual({ now: ["n2"], most: 1 });
});

test("a QEMU that did not answer when its guest might be stopped is asked again", async () => {
  const silent = join(directory, `silent-${NODE.source}`);
  writeFileSync(silent, "");
  const move = await begin("silent");
  start("source");
  start("target");
  expect(await ended(move)).toBe("Done");
  expect(existsSync(silent)).toBe(false);
});

test("a target without room gives up, and says why", async () => {
  writeFileSync(join(directory, "full-n2"), "");
  const move = await begin("full");
  start("source");
  start("target");
  expect(await ended(move)).toBe("Source");
  expect(move.status().target).toMatchObject({ state: "Released", message: "the pool is full", retryable: true });
  // Whether it heard of that, or only of the record: it has no reason of its own.
  expect(["TargetGaveUp", undefined]).toContain(move.status().source?.reason);
  expect(cpusOf(directory, move.uid)).toEqual({ now: ["n1"], most: 1 });
  // The next attempt, with room.
  rmSync(join(directory, "full-n2"));
  await patch("migration", move.name, { handover: { attempt: 2, state: "Copying" } });
  expect(await ended(move)).toBe("Done");
  expect(move.status().source?.attempt).toBe(2);
});

test("a cancel while disks are copied ends it at once", async () => {
  const file = hold("source", "copy-memory");
  const move = await begin("cancelled");
  start("source");
  start("target");
  await reached("source", "copy-memory");
  await patch("migration", move.name, { handover: { attempt: 1, state: "Source" } });
  rmSync(file);
  expect(await ended(move)).toBe("Source");
  expect(move.status().source).toMatchObject({ state: "GivenUp" });
  expect(cpusOf(directory, move.uid)).toEqual({ now: ["n1"], most: 1 });
});

test("the guest ends while it is moved", async () => {
  const file = hold("source", "write-handover");
  const move = await begin("crashed");
  start("source");
  start("target");
  await reached("source", "write-handover");
  await new FakeMachine(directory, "n1").stop(move.uid);
  rmSync(file);
  expect(await ended(move)).toBe("Source");
  expect(cpusOf(directory, move.uid)).toEqual({ now: [], most: 1 });
  // Else the driver would take the guest's next QEMU for the one that was about to be stopped.
  await vi.waitFor(() => expect(givenUpOn(directory, move.uid)).toContain("n1"), { timeout: 10_000, interval: 50 });
});

test("a Migration that is deleted by force leaves the guest where it was, and nothing at the target", async () => {
  const file = hold("source", "copy-memory");
  const move = await begin(`gone-${randomUUID().slice(0, 4)}`);
  start("source");
  start("target");
  await reached("source", "copy-memory");
  await installed.kubectl.accepted(["delete", "migration", move.name]);
  rmSync(file);
  await vi.waitFor(() => {
    const left = ["n1", "n2"].flatMap((node) => leftOn(directory, node, move.uid));
    expect(left).toEqual([`qemu-n1/${move.uid}.json`]);
  }, 30_000);
  expect(cpusOf(directory, move.uid)).toEqual({ now: ["n1"], most: 1 });
});
