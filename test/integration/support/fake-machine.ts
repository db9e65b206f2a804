/**
 * QEMUs that are only files in a directory that all nodes of a test share: they outlive the agents, fail when told to, and one file
 * (`cpus.log`) has every stop and start of every guest's CPUs in the order in which they happened, another (`pings.log`) who was asked
 * for a sign of life, a third (`given-up.log`) whose move was given up at its source.
 */
import {
  appendFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  watch,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import type { InstanceDriver } from "../../../node-agent/instance/driver.ts";
import type {
  IncomingPlan,
  IncomingState,
  MoveCounters,
  MoveDriver,
  MoveEvent,
  Offer,
  OutgoingPlan,
  OutgoingState,
} from "../../../node-agent/instance/move.ts";

interface Qemu {
  /** Whether its CPUs run. */
  cpus: boolean;
  out: OutgoingState;
  in: IncomingState;
  /** Node of the QEMU that it sends to. */
  to?: string;
  disks?: "ready";
}

const MIB = 1024 ** 2;

export class FakeMachine
  implements MoveDriver, Pick<InstanceDriver, "prepare" | "observe" | "stop" | "forget" | "pingGuestAgent">
{
  readonly #directory: string;
  readonly #node: string;
  readonly #watchers = new Map<string, Set<(event: MoveEvent) => void>>();
  #rounds = 1;

  constructor(directory: string, node: string) {
    this.#directory = directory;
    this.#node = node;
    mkdirSync(this.#place(), { recursive: true });
    // Whoever changes a QEMU of this node, an agent of another one included: that is an event.
    watch(this.#place(), (_, name) => {
      const uid = /^([0-9a-f-]{36})\.json$/.exec(name ?? "")?.[1];
      if (uid !== undefined) this.#changed(uid);
    });
  }

  /** As an agent that died has left it. */
  see(uid: string, node = this.#node): Qemu | undefined {
    const file = this.#file(uid, node);
    return existsSync(file) ? (JSON.parse(readFileSync(file, "utf8")) as Qemu) : undefined;
  }

  boot(uid: string): void {
    this.#put(uid, { cpus: false, out: "idle", in: "gone" });
    this.#run(uid);
  }

  prepare(): Promise<{ uid: number; gid: number }> {
    return Promise.resolve({ uid: 1, gid: 1 });
  }
  observe(uid: string): Promise<{ state: "absent" | "running" | "paused" }> {
    const seen = this.see(uid);
    return Promise.resolve({ state: seen === undefined ? "absent" : seen.cpus ? "running" : "paused" });
  }
  stop(uid: string): Promise<void> {
    this.#end(uid);
    return Promise.resolve();
  }
  pingGuestAgent(uid: string): Promise<boolean> {
    appendFileSync(join(this.#directory, "pings.log"), `${uid} ${this.#node}\n`);
    return Promise.resolve(this.see(uid)?.cpus === true);
  }
  forget(uid: string): Promise<void> {
    rmSync(join(this.#directory, `root-${this.#node}`, "instances", uid), { recursive: true, force: true });
    return Promise.resolve();
  }

  receive(plan: IncomingPlan): Promise<Offer> {
    const { instanceUid } = plan.machine;
    if (this.see(instanceUid) === undefined) this.#put(instanceUid, { cpus: false, out: "idle", in: "waiting" });
    return Promise.resolve({ address: this.#node, ramPort: 49_152, diskPort: 49_153, streams: 0, postCopy: false });
  }
  incoming(uid: string): Promise<IncomingState> {
    return Promise.resolve(this.see(uid)?.in ?? "gone");
  }
  resume(uid: string): Promise<void> {
    const seen = this.see(uid);
    if (seen?.in === "running") return Promise.resolve();
    if (seen?.in !== "complete") return Promise.reject(new Error(`not complete but ${seen?.in ?? "gone"}`));
    this.#run(uid, { in: "running" });
    return Promise.resolve();
  }
  closeDisks(): Promise<void> {
    return Promise.resolve();
  }
  abandon(uid: string): Promise<void> {
    if (this.see(uid)?.in === "running") return Promise.reject(new Error("it has been resumed"));
    this.#end(uid);
    return Promise.resolve();
  }

  outgoing(uid: string): Promise<OutgoingState> {
    return Promise.resolve(this.see(uid)?.out ?? "gone");
  }
  async copyDisks(uid: string, plan: OutgoingPlan): Promise<void> {
    this.#peer(uid, plan.offer.address);
    await pause(20);
    this.#change(uid, { disks: "ready" });
  }
  async copyMemory(uid: string, plan: OutgoingPlan): Promise<void> {
    const seen = this.see(uid);
    if (seen?.out === "copying") return;
    if (plan.copy.length > 0 && seen?.disks !== "ready") throw new Error("a disk is not in step with its copy");
    this.#peer(uid, plan.offer.address);
    this.#change(uid, { out: "copying", to: plan.offer.address });
    await pause(20);
  }
  /** Does not answer once, where a test has put a file for it. */
  allowPause(uid: string): Promise<void> {
    const silent = join(this.#directory, `silent-${this.#node}`);
    if (existsSync(silent)) {
      rmSync(silent);
      return Promise.reject(new Error("no answer within 5000 ms"));
    }
    setTimeout(() => {
      if (this.see(uid)?.out !== "copying") return;
      this.#halt(uid, { out: "held" });
      this.#tell(uid, { kind: "stop", at: Date.now() });
      this.#tell(uid, { kind: "held" });
    }, 10);
    return Promise.resolve();
  }
  async finish(uid: string): Promise<void> {
    const seen = this.see(uid);
    if (seen?.out === "complete") return;
    if (seen?.out !== "held" || seen.to === undefined) throw new Error(`not held but ${seen?.out ?? "gone"}`);
    const peer = this.see(uid, seen.to);
    if (peer?.in !== "waiting") throw new Error("the target is gone");
    this.#put(uid, { ...peer, in: "complete" }, seen.to);
    await pause(5);
    this.#change(uid, { out: "complete" });
    this.#tell(uid, { kind: "complete" });
  }
  limit(): Promise<void> {
    return Promise.resolve();
  }
  throttle(): Promise<void> {
    return Promise.resolve();
  }
  postCopy(): Promise<void> {
    return Promise.reject(new Error("not possible"));
  }
  receiveRest(): Promise<Offer> {
    return Promise.reject(new Error("not possible"));
  }
  sendRest(): Promise<void> {
    return Promise.reject(new Error("not possible"));
  }
  giveUp(uid: string): Promise<void> {
    appendFileSync(join(this.#directory, "given-up.log"), `${uid} ${this.#node}\n`);
    const seen = this.see(uid);
    if (seen === undefined) return Promise.resolve();
    if (seen.cpus) this.#put(uid, { cpus: true, out: "idle", in: seen.in });
    else this.#run(uid, { out: "idle" });
    return Promise.resolve();
  }
  release(): Promise<void> {
    return Promise.resolve();
  }
  counters(uid: string): Promise<MoveCounters> {
    this.#rounds += 1;
    const copying = this.see(uid)?.out === "copying";
    return Promise.resolve({
      disk: { doneBytes: MIB, totalBytes: MIB },
      memory: {
        doneBytes: copying ? 250 * MIB : 0,
        totalBytes: 256 * MIB,
        remainingBytes: MIB,
        bytesPerSecond: 100 * MIB,
        dirtyBytesPerSecond: MIB,
        rounds: this.#rounds,
      },
      expectedPauseMs: 50,
      downtimeMs: 12,
    });
  }
  onMove(uid: string, fn: (event: MoveEvent) => void): () => void {
    const all = this.#watchers.get(uid) ?? new Set();
    this.#watchers.set(uid, all.add(fn));
    return () => void all.delete(fn);
  }
  marks(): [] {
    return [];
  }

  #peer(uid: string, node: string): void {
    if (this.see(uid, node)?.in !== "waiting") throw new Error("nobody takes it there");
  }

  #changed(uid: string): void {
    const seen = this.see(uid);
    if (seen === undefined) this.#tell(uid, { kind: "ended" });
    else this.#tell(uid, { kind: seen.in === "complete" ? "complete" : "state" });
  }

  #tell(uid: string, event: MoveEvent): void {
    for (const fn of this.#watchers.get(uid) ?? []) fn(event);
  }

  #run(uid: string, over: Partial<Qemu> = {}): void {
    this.#log(uid, "run");
    this.#change(uid, { ...over, cpus: true });
  }

  #halt(uid: string, over: Partial<Qemu>): void {
    this.#change(uid, { ...over, cpus: false });
    this.#log(uid, "stop");
  }

  #end(uid: string): void {
    const seen = this.see(uid);
    if (seen === undefined) return;
    rmSync(this.#file(uid));
    if (seen.cpus) this.#log(uid, "stop");
  }

  #change(uid: string, over: Partial<Qemu>): void {
    const seen = this.see(uid);
    if (seen === undefined) throw new Error("there is no QEMU");
    this.#put(uid, { ...seen, ...over });
  }

  #put(uid: string, qemu: Qemu, node = this.#node): void {
    const file = this.#file(uid, node);
    writeFileSync(`${file}.new`, JSON.stringify(qemu));
    renameSync(`${file}.new`, file);
  }

  #log(uid: string, what: "run" | "stop"): void {
    appendFileSync(join(this.#directory, "cpus.log"), `${uid} ${this.#node} ${what}\n`);
  }

  #place(node = this.#node): string {
    return join(this.#directory, `qemu-${node}`);
  }

  #file(uid: string, node = this.#node): string {
    return join(this.#place(node), `${uid}.json`);
  }
}

/** Nodes on which a guest runs at the end, and the most that ever ran at a time. */
export function cpusOf(directory: string, uid: string): { now: string[]; most: number } {
  const running = new Set<string>();
  let most = 0;
  for (const line of readFileSync(join(directory, "cpus.log"), "utf8").split("\n")) {
    const [of, node = "", what] = line.split(" ");
    if (of !== uid) continue;
    if (what === "run") running.add(node);
    else running.delete(node);
    most = Math.max(most, running.size);
  }
  return { now: [...running], most };
}

const nodesIn = (log: string, directory: string, uid: string): string[] =>
  readFileSync(join(directory, log), "utf8")
    .split("\n")
    .map((line) => line.split(" "))
    .flatMap(([of, node = ""]) => (of === uid ? [node] : []));

/** Nodes whose agent has asked the guest for a sign of life, in order. */
export const pingsOf = (directory: string, uid: string): string[] => nodesIn("pings.log", directory, uid);

/** Nodes whose agent has given up the guest's move from there, in order. */
export const givenUpOn = (directory: string, uid: string): string[] => nodesIn("given-up.log", directory, uid);

/** Files of an agent's node that name the instance. */
export function leftOn(directory: string, node: string, uid: string): string[] {
  const places = [
    `qemu-${node}`,
    `volumes-${node}`,
    `taps-${node}`,
    join(`root-${node}`, "moves"),
    join(`root-${node}`, "instances"),
  ];
  return places.flatMap((place) => {
    const path = join(directory, place);
    return existsSync(path)
      ? readdirSync(path)
          .filter((name) => name.includes(uid))
          .map((name) => join(place, name))
      : [];
  });
}

const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));
