/** Objects and facts for tests, complete and valid; give what matters to the test. */
import type { Host, HostStatus } from "../../crds/host.ts";
import type { GuestStatus, Instance, InstanceStatus } from "../../crds/instance.ts";
import type { HandoverState, Migration, MigrationSpec, MigrationStatus } from "../../crds/migration.ts";
import { API_VERSION, targetClaimName } from "../../crds/names.ts";
import type { ObjectMeta } from "../../crds/schema.ts";
import type { Node } from "../../kube/index.ts";
import type { ClaimSeen } from "../instance/facts.ts";
import { instanceFixture, UID } from "../instance/fixtures.ts";
import type { MoveFacts, TargetClaimSeen } from "./plan.ts";
import type { NodeFacts } from "./preflight.ts";
import { migrationSettings } from "./settings.ts";

export const MOVE_UID = "77777777-0000-4000-8000-000000000001";
export const NOW = Date.parse("2026-01-01T01:00:00Z");

export const guestFixture: GuestStatus = {
  state: "Running",
  claimUid: "c1",
  accelerator: "TCG",
  machineType: "pc-q35-10.0",
  cpuModel: "qemu64-v1",
  qemuVersion: "10.0.2",
};

/** An instance that runs on n1. */
export const movedInstance = (status: Partial<InstanceStatus> = {}, more: Parameters<typeof instanceFixture>[0] = {}): Instance =>
  instanceFixture({
    ...more,
    status: {
      phase: "Running",
      nodeName: "n1",
      claim: { name: "drover-web-1", serial: 1, uid: "c1", node: "n1" },
      guest: guestFixture,
      ...status,
    },
  });

export function migrationFixture(
  status?: MigrationStatus,
  spec: Partial<MigrationSpec> = {},
  metadata: Partial<ObjectMeta> = {},
): Migration {
  return {
    apiVersion: API_VERSION,
    kind: "Migration",
    metadata: {
      name: "web-1",
      namespace: "team-a",
      uid: MOVE_UID,
      resourceVersion: "9",
      generation: 1,
      creationTimestamp: "2026-01-01T00:59:00Z",
      ...metadata,
    },
    spec: { instance: "web", mode: "Live", ...spec },
    ...(status === undefined ? {} : { status }),
  };
}

/** The status of a move that has its turn; with `state`, one that the agents are at. */
export function movingStatus(state?: HandoverState, more: Partial<MigrationStatus> = {}): MigrationStatus {
  const attempt = (more.retries ?? 0) + 1;
  const targetClaim = { name: targetClaimName("web", MOVE_UID, attempt) };
  const turn: MigrationStatus = { phase: "Pending", instanceUid: UID, sourceNode: "n1", targetClaim };
  if (state === undefined) return { ...turn, ...more };
  return {
    ...turn,
    targetNode: "n2",
    sourceClaim: { name: "drover-web-1", uid: "c1" },
    targetClaim: { ...targetClaim, uid: "c2" },
    handover: { attempt, state },
    policy: { maxPauseMs: 300, onStall: "Throttle", timeoutMs: 3_600_000, tls: true },
    ...more,
  };
}

export const targetClaim = (more: Partial<TargetClaimSeen> = {}): TargetClaimSeen => ({
  name: targetClaimName("web", MOVE_UID, 1),
  uid: "c2",
  node: "n2",
  migration: "web-1",
  labelled: true,
  createdAt: NOW,
  deleting: false,
  holderRunning: true,
  ...more,
});

export const sourceClaim: ClaimSeen = {
  name: "drover-web-1",
  uid: "c1",
  node: "n1",
  createdAt: 0,
  deleting: false,
  holderRunning: true,
};

export const hostFixture = (name: string, status: Partial<HostStatus> = {}): Host => ({
  apiVersion: API_VERSION,
  kind: "Host",
  metadata: { name, uid: name, resourceVersion: "1", generation: 1, creationTimestamp: "2026-01-01T00:00:00Z" },
  spec: undefined,
  status: {
    conditions: [{ type: "Ready", status: "True", reason: "Ready", message: "", lastTransitionTime: "2026-01-01T00:00:00Z" }],
    accelerator: "TCG",
    qemuVersion: "10.0.2",
    machineTypes: ["pc-q35-10.0", "pc-q35-9.2"],
    cpuModel: "qemu64-v1",
    pools: [{ name: "local", ready: true }],
    ...status,
  },
});

export const nodeFixture = (name: string, spec: Node["spec"] = {}): Node => ({
  apiVersion: "v1",
  kind: "Node",
  metadata: { name },
  spec,
});

/** A node that can take the instance. */
export const goodNode = (name: string, more: Partial<NodeFacts> = {}): NodeFacts => ({
  name,
  node: nodeFixture(name),
  seen: { state: "Answering" },
  host: hostFixture(name),
  ...more,
});

/** Facts of a move that has nothing in its way. */
export const factsFixture = (more: Partial<MoveFacts> = {}): MoveFacts => ({
  migration: migrationFixture(),
  instance: movedInstance(),
  first: undefined,
  source: { state: "Answering" },
  target: { state: "Answering" },
  claim: undefined,
  oldClaims: [],
  otherClaims: [],
  sourceClaim,
  refused: undefined,
  nodeFacts: (name) => goodNode(name),
  hasPool: () => true,
  nodesWith: () => ["n1", "n2", "n3"],
  isShared: () => false,
  askTurn: () => ({ granted: true }),
  lasted: () => 0,
  settings: migrationSettings("{}"),
  updates: { perNode: 1, perCluster: 4, maxPauseMs: 300 },
  now: NOW,
  ...more,
});
