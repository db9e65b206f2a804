import { describe, expect, it } from "vitest";
import type { GuestStatus } from "../../crds/instance.ts";
import { factsFixture, goodNode, guestFixture, hostFixture, migrationFixture, movedInstance, nodeFixture } from "./fixtures.ts";
import { hasCpu, machineProblem } from "./machine.ts";
import { checkInstance, checkTarget, diskPlan, unsuitableNodes } from "./preflight.ts";
import type { Check } from "./check.ts";

const said = (check: Check): string => (check.state === "ok" ? "ok" : `${check.state} ${check.reason}: ${check.message}`);
const guest = (more: Partial<GuestStatus>) => movedInstance({ guest: { ...guestFixture, ...more } });
const condition = (status: "True" | "False", message: string) => [
  { type: "Ready", status, reason: "R", message, lastTransitionTime: "2026-01-01T00:00:00Z" },
];

describe("checkInstance", () => {
  const asks = (spec: Parameters<typeof migrationFixture>[1]) => ({ migration: migrationFixture(undefined, spec) });
  it.each<[string, Partial<Parameters<typeof checkInstance>[0]>, string]>([
    ["all is well", {}, "ok"],
    ["no such instance", { instance: undefined }, "wait InstanceNotFound: there is no Instance web in namespace team-a"],
    [
      "being deleted",
      { instance: movedInstance({}, { metadata: { deletionTimestamp: "2026-01-01T00:00:00Z" } }) },
      "fail InstanceDeleted: instance web is being deleted",
    ],
    [
      "stopped",
      { instance: movedInstance({}, { spec: { power: "Stopped" } }) },
      "fail InstanceStopped: instance web is stopped; use mode: Cold, or start it (spec.power: Running) and make the Migration again",
    ],
    [
      "not running yet",
      {
        instance: movedInstance({ phase: "Starting", guest: undefined, conditions: condition("False", "its image is fetched") }),
      },
      "wait InstanceNotRunning: waits until instance web runs; it is Starting: its image is fetched",
    ],
    [
      "its guest is of an earlier claim",
      { instance: guest({ claimUid: "c0" }) },
      "wait InstanceNotRunning: waits until instance web runs; it is Running",
    ],
    [
      "a pool that is not there",
      { ...asks({ target: { pool: "gold" } }), hasPool: (name) => name !== "gold" },
      "fail PoolNotFound: target.pool: there is no StoragePool gold; make it, or name another one",
    ],
    [
      "its node is silent",
      { source: { state: "Silent", reason: "AgentSilent", message: "the agent of node n1 has not been heard of" } },
      "wait AgentSilent: the guest cannot be moved now: the agent of node n1 has not been heard of",
    ],
    [
      "its node is gone",
      { source: { state: "Gone" } },
      "fail NodeGone: node n1 is no longer in the cluster, and the guest with it",
    ],
    [
      "its QEMU is too old",
      { instance: guest({ qemuVersion: "7.2.9" }) },
      "fail QEMUTooOld: instance web cannot be moved: QEMU 7.2.9 that it runs in loses memory when it moves an emulated guest (TCG); it takes QEMU 9 or newer: stop and start it (spec.restartedAt) once its node has that",
    ],
    [
      "a device of its guest cannot be moved",
      { instance: guest({ blockers: ["State blocked by non-migratable device '0000:00:04.0/nvme'"] }) },
      "fail DeviceCannotMove: instance web cannot be moved: QEMU cannot move it while it runs: State blocked by non-migratable device '0000:00:04.0/nvme'; stop it (spec.power: Stopped) and move it with mode: Cold",
    ],
    ["an old QEMU with KVM will do", { instance: guest({ qemuVersion: "7.2.9", accelerator: "KVM" }) }, "ok"],
    [
      "its machine is not known",
      { instance: guest({ machineType: undefined }) },
      "fail MachineUnknown: instance web cannot be moved: its agent has not said what machine and CPU its guest has; they are known within seconds of its start",
    ],
  ])("%s", (_, facts, want) => expect(said(checkInstance(factsFixture(facts)))).toBe(want));
});

describe("checkTarget", () => {
  it.each<[string, Partial<ReturnType<typeof goodNode>>, string]>([
    ["all is well", {}, "ok"],
    [
      "the present node",
      { name: "n1" },
      "fail TargetIsPresentNode: instance web runs on node n1 already; name another node, or none",
    ],
    ["an unknown node", { node: undefined }, "fail NodeNotFound: target.node: there is no Node n2; see kubectl get nodes"],
    [
      "a silent node",
      { seen: { state: "Silent", reason: "NodeNotReady", message: "node n2 is not ready" } },
      "wait TargetNotReady: node n2 is not ready",
    ],
    [
      "a node that somebody has said is dead",
      { seen: { state: "Fenced", reason: "NodeOutOfService", message: "node n2 was put out of service" } },
      "fail NodeOutOfService: node n2 was put out of service; name another node, or none",
    ],
    [
      "a cordoned node",
      { node: nodeFixture("n2", { unschedulable: true }) },
      "wait TargetCordoned: node n2 is cordoned; kubectl uncordon n2, or name another node",
    ],
    [
      "no agent was ever there",
      { host: undefined },
      "wait TargetNotReady: node n2 has no Host object: Drover's agent has not run there yet; look at its pod",
    ],
    [
      "its agent cannot take instances",
      { host: hostFixture("n2", { conditions: condition("False", "the switch does not run") }) },
      "wait TargetNotReady: node n2 cannot take instances: the switch does not run",
    ],
    [
      "no such pool there",
      { host: hostFixture("n2", { pools: [] }) },
      "fail PoolNotOnTarget: node n2 has no pool local; name another node, or another pool by target.pool",
    ],
    [
      "the pool is not ready there",
      { host: hostFixture("n2", { pools: [{ name: "local", ready: false, message: "it is being formatted" }] }) },
      "wait PoolNotReady: pool local of node n2 is not ready: it is being formatted",
    ],
    [
      "another accelerator",
      { host: hostFixture("n2", { accelerator: "KVM" }) },
      "fail AcceleratorDiffers: node n2 runs guests by KVM, and this one runs by TCG; move it to a node with TCG",
    ],
    [
      "an unknown machine type",
      { host: hostFixture("n2", { machineTypes: ["pc-q35-9.2"], qemuVersion: "9.2.0" }) },
      "fail MachineTypeUnknown: QEMU 9.2.0 of node n2 does not know the guest's machine type pc-q35-10.0; move it to another node, or bring n2 to the same version of Drover",
    ],
    ["a better CPU", { host: hostFixture("n2", { cpuModel: "Haswell-v4" }) }, "ok"],
    [
      "QEMU is too old there",
      { host: hostFixture("n2", { qemuVersion: "8.2.0" }) },
      "fail QEMUTooOld: QEMU 8.2.0 of node n2 loses memory when it moves an emulated guest (TCG); it takes QEMU 9 or newer",
    ],
  ])("%s", (_, more, want) => {
    expect(said(checkTarget(migrationFixture(), movedInstance(), goodNode("n2", more)))).toBe(want);
  });
});

describe("CPUs", () => {
  it.each<[string, string, boolean]>([
    ["Haswell-v4", "Haswell-v4", true],
    ["Haswell-v4", "Westmere-v1", true],
    ["Haswell-v4", "EPYC-v1", false],
    ["Westmere-v1", "Haswell-v4", false],
    ["Nehalem-v1", "Westmere-v1", false],
    ["EPYC-v1", "qemu64-v1", true],
    ["Martian-v1", "qemu64-v1", false],
    ["Martian-v1", "Martian-v1", true],
  ])("one with %s has what %s asks for: %s", (best, wanted, want) => expect(hasCpu(best, wanted)).toBe(want));

  it("names what is lacking", () => {
    const problem = machineProblem({ ...guestFixture, cpuModel: "EPYC-v1" }, "n2", { cpuModel: "Haswell-v4" });
    expect(problem).toEqual({
      reason: "CPUModelUnknown",
      message: "node n2 offers the CPU Haswell-v4, which lacks what the guest's EPYC-v1 has; move it to another node",
    });
  });
});

describe("what the claim asks kube-scheduler for", () => {
  it("leaves out nodes that cannot run the guest", () => {
    const hosts = [
      hostFixture("n4", { conditions: condition("False", "no") }),
      hostFixture("n3", { accelerator: "KVM" }),
      hostFixture("n2"),
    ];
    expect(unsuitableNodes(migrationFixture(), movedInstance(), hosts)).toEqual(["n3", "n4"]);
  });

  it("copies nothing but the root disk when the instance stays on its node", () => {
    const disks = [{ name: "data", pool: "slow", size: "3Gi" }];
    const migration = migrationFixture(undefined, { target: { pool: "fast", node: "n1" } });
    const plan = diskPlan(migration, movedInstance({}, { spec: { disks } }), () => false, true);
    expect(plan.map(({ name, targetPool, copy }) => [name, targetPool, copy])).toEqual([
      ["root", "fast", true],
      ["data", "slow", false],
    ]);
  });

  it("takes only the root disk to another pool, and copies nothing that both nodes share", () => {
    const disks = [
      { name: "data", pool: "slow", size: "3Gi" },
      { name: "more", pool: "nfs", size: "3Gi" },
    ];
    const migration = migrationFixture(undefined, { target: { pool: "fast" } });
    const plan = diskPlan(migration, movedInstance({}, { spec: { disks } }), (pool) => pool === "nfs");
    expect(plan.map(({ name, sourcePool, targetPool, copy }) => [name, sourcePool, targetPool, copy])).toEqual([
      ["root", "local", "fast", true],
      ["data", "slow", "slow", true],
      ["more", "nfs", "nfs", false],
    ]);
  });
});
