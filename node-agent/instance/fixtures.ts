/** Instances, situations and a driver that is only remembered: for tests. */
import type { Instance } from "../../crds/instance.ts";
import type { GuestExit, InstanceDriver, InstanceNote, MachinePlan, Observed } from "./driver.ts";
import type { Situation } from "./plan.ts";
import { NO_NOTE } from "./restart-note.ts";

export const NOW = Date.UTC(2026, 0, 1, 12);
export const at = (ms: number): string => new Date(NOW + ms).toISOString();

export const note = (run: Partial<NonNullable<InstanceNote["run"]>> = {}): InstanceNote => ({
  instanceUid: "uid-1",
  namespace: "default",
  name: "web",
  identity: { uid: 64_001, gid: 64_001 },
  run: {
    claimUid: "claim-1",
    machineType: "pc-q35-10.0",
    cpuModel: "qemu64",
    accelerator: "TCG",
    runtimeVersion: "r1",
    qemuVersion: "10.0.13",
    pid: 4711,
    bootId: "boot-1",
    startedAt: at(-60_000),
    oomKillsBefore: 0,
    ...run,
  },
});

export const running = (over: Partial<Observed> = {}): Observed => ({
  state: "running",
  pid: 4711,
  claimUid: "claim-1",
  runState: "running",
  guestAgentOpen: true,
  note: note(),
  ...over,
});

export const exited = (exit: Partial<GuestExit>, run: Parameters<typeof note>[0] = {}): Observed => {
  const whole: GuestExit = { reason: "Crashed", message: "QEMU ended", at: at(-1_000), ...exit };
  return { state: "exited", note: note({ ...run, exit: whole }), exit: whole };
};

export const situation = (over: Partial<Situation> = {}): Situation => ({
  now: NOW,
  spec: { power: "Running", restart: "OnFailure" },
  deleting: false,
  claim: { uid: "claim-1", state: { state: "alive" } },
  observed: { state: "absent" },
  otherClaim: undefined,
  note: NO_NOTE,
  failure: undefined,
  said: undefined,
  ...over,
});

export const instance = (
  over: Partial<Omit<Instance, "metadata">> & { metadata?: Partial<Instance["metadata"]> } = {},
): Instance => ({
  apiVersion: "drover.dev/v1alpha1",
  kind: "Instance",
  spec: {
    type: "VirtualMachine",
    power: "Running",
    restart: "OnFailure",
    onDrain: "LiveMigrate",
    image: { url: "https://images.example/tiny.qcow2", checksum: `sha256:${"0".repeat(64)}` },
    cpu: 1,
    memory: "128Mi",
    rootDisk: { pool: "default", size: "1Gi" },
    nics: [{ name: "eth0", network: "blue" }],
  },
  status: {
    nodeName: "n1",
    claim: { name: "drover-web-abcde", serial: 1, uid: "claim-1", node: "n1" },
    nics: [
      { name: "eth0", network: "blue", mac: "52:54:00:00:00:01", ipv4: "10.10.0.5", port: "default.web.eth0.uid-1", mtu: 1442 },
    ],
  },
  ...over,
  metadata: {
    name: "web",
    namespace: "default",
    uid: "uid-1",
    resourceVersion: "1",
    generation: 1,
    creationTimestamp: at(-120_000),
    ...over.metadata,
  },
});

/** A driver without a machine: what it is told, it observes. */
export class FakeDriver implements InstanceDriver {
  readonly calls: string[] = [];
  readonly seen = new Map<string, Observed>();
  readonly listeners = new Set<() => void>();
  started: MachinePlan[] = [];
  /** Throws this at the next start. */
  startError: Error | undefined;

  prepare(): Promise<{ uid: number; gid: number }> {
    this.calls.push("prepare");
    return Promise.resolve({ uid: 64_001, gid: 64_001 });
  }
  observe(uid: string): Promise<Observed> {
    return Promise.resolve(this.seen.get(uid) ?? { state: "absent" });
  }
  start(plan: MachinePlan): Promise<{ pid: number }> {
    this.calls.push("start");
    if (this.startError !== undefined) return Promise.reject(this.startError);
    this.started.push(plan);
    const { claimUid, machineType, cpuModel, runtimeVersion } = plan;
    const run = note({ claimUid, machineType, cpuModel, runtimeVersion, startedAt: at(0) });
    this.seen.set(plan.instanceUid, running({ claimUid, note: run, guestAgentOpen: false }));
    return Promise.resolve({ pid: 4711 });
  }
  stop(uid: string, how: { mode: string }): Promise<void> {
    this.calls.push(`stop ${how.mode}`);
    const before = this.seen.get(uid);
    const claimUid = before?.claimUid;
    this.seen.set(
      uid,
      exited({ reason: "Stopped", message: "it was asked to stop" }, claimUid === undefined ? {} : { claimUid }),
    );
    return Promise.resolve();
  }
  pingGuestAgent(): Promise<boolean> {
    return Promise.resolve(false);
  }
  consoleTail(): Promise<string> {
    return Promise.resolve("");
  }
  forget(uid: string): Promise<void> {
    this.calls.push("forget");
    this.seen.delete(uid);
    return Promise.resolve();
  }
  list(): Promise<string[]> {
    return Promise.resolve([...this.seen.keys()]);
  }
  watch(_: string, onChange: () => void): () => void {
    this.listeners.add(onChange);
    return () => this.listeners.delete(onChange);
  }
}
