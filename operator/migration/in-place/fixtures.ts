/** An update in place for tests, complete and valid: instance web runs in r1 on n1, where r2 is current. */
import type { HostRuntime, HostStatus } from "../../../crds/host.ts";
import type { GuestStatus, Instance } from "../../../crds/instance.ts";
import type { HandoverState, Migration, MigrationSpec, MigrationStatus } from "../../../crds/migration.ts";
import { UID } from "../../instance/fixtures.ts";
import { factsFixture, goodNode, guestFixture, hostFixture, migrationFixture, movedInstance } from "../fixtures.ts";
import type { MoveFacts } from "../plan.ts";

export const runtimes: HostRuntime[] = [
  { version: "r1", qemuVersion: "10.0.2", machineTypes: ["pc-q35-10.0"], current: false, instances: 1 },
  { version: "r2", qemuVersion: "10.0.13", machineTypes: ["pc-q35-10.0"], current: true, instances: 0 },
];

export const updateHost = (status: Partial<HostStatus> = {}) =>
  hostFixture("n1", { runtimes, runtimeVersion: "r2", qemuVersion: "10.0.13", ...status });

export const updatable = (guest: Partial<GuestStatus> = {}, more: Parameters<typeof movedInstance>[1] = {}): Instance =>
  movedInstance({ guest: { ...guestFixture, runtimeVersion: "r1", ...guest } }, more);

export const updateFixture = (status?: MigrationStatus, spec: Partial<MigrationSpec> = {}): Migration =>
  migrationFixture(status, { mode: "InPlace", ...spec });

const claim = { name: "drover-web-1", uid: "c1" };

/** The status of an update that has its turn; with `state`, one that the agent is at. */
export function updatingStatus(state?: HandoverState, more: Partial<MigrationStatus> = {}): MigrationStatus {
  const attempt = (more.retries ?? 0) + 1;
  const turn: MigrationStatus = { phase: "Pending", instanceUid: UID, sourceNode: "n1", targetClaim: claim };
  if (state === undefined) return { ...turn, ...more };
  return {
    ...turn,
    targetNode: "n1",
    sourceClaim: claim,
    disks: [],
    handover: { attempt, state },
    policy: { maxPauseMs: 300, onStall: "Abort", timeoutMs: 120_000, tls: false },
    runtime: { from: { version: "r1", qemu: "10.0.2" }, to: { version: "r2", qemu: "10.0.13" } },
    ...more,
  };
}

/** Facts of an update that has nothing in its way. */
export const updateFacts = (more: Partial<MoveFacts> = {}): MoveFacts =>
  factsFixture({
    migration: updateFixture(),
    instance: updatable(),
    nodeFacts: (name) => goodNode(name, { host: updateHost() }),
    ...more,
  });
