/** Bad days: everything of Drover, of OVN and of Kubernetes dies in turn, and the guest does not notice. */
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { freezeApiServer, powerCut, powerOn, restartContainerd, restartKubelet, thawApiServer } from "../../hack/lab/faults.ts";
import { lab } from "../../hack/lab/index.ts";
import type { Probe } from "../../hack/lab/probe.ts";
import { run } from "../../hack/lab/run.ts";
import {
  addressOf,
  checkDisk,
  instance,
  observer,
  processOf,
  status,
  statusWithin,
  whileEchoing,
  OBSERVED_NETWORK,
} from "../../hack/kit/guest.ts";
import {
  apply,
  eventually,
  images,
  kubectl,
  namespaceManifest,
  networkManifest,
  virtualMachine,
  waitFor,
  type GuestReport,
} from "../../hack/kit/cluster.ts";

const NAMESPACE = "days";
const SYSTEM = "drover-system";
let probe: Probe;
let address: string;

interface Snapshot {
  process: string;
  guest: GuestReport;
}

const snapshot = async (): Promise<Snapshot> => ({
  process: await processOf(await instance(NAMESPACE, "vm")),
  guest: await statusWithin(probe, address, 60),
});

/** Same QEMU, same boot, and no record that was acknowledged is lost. */
const expectUntouched = async (before: Snapshot): Promise<void> => {
  const after = await snapshot();
  expect(after.process).toBe(before.process);
  expect(after.guest.bootId).toBe(before.guest.bootId);
  expect(after.guest.lastAcked).toBeGreaterThan(before.guest.lastAcked);
  const { problem } = await checkDisk(await instance(NAMESPACE, "vm"), after.guest.lastAcked);
  expect(problem).toBeUndefined();
};

/** Ends all pods of a component by force, and waits until their successors are ready. */
const replacePods = async (component: string, workload: string): Promise<void> => {
  const selector = `app.kubernetes.io/component=${component}`;
  await kubectl(["-n", SYSTEM, "delete", "pods", "-l", selector, "--grace-period=0", "--force", "--wait=true"], { seconds: 90 });
  await kubectl(["-n", SYSTEM, "rollout", "status", workload, "--timeout=120s"], { seconds: 130 });
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
    virtualMachine(NAMESPACE, "vm", { image: tiny, node: "n1", network: "net" }),
  );
  await waitFor("inst/vm", "condition=Ready", 180, NAMESPACE);
  address = await addressOf(NAMESPACE, "vm");
  probe = await observer({ node: "n3", namespace: NAMESPACE, network: "net" });
});

afterAll(async () => {
  await eventually(async () => (await probe?.remove(), true), 60, "the observer is removed");
  await kubectl(["delete", "namespace", NAMESPACE, "--timeout=120s"], { seconds: 130 });
});

describe("the guest is not touched", () => {
  let before: Snapshot;
  beforeEach(async () => {
    before = await snapshot();
  });

  test("when every agent is killed by SIGKILL", async () => {
    const { silenceMs } = await whileEchoing(probe, address, () => replacePods("node-agent", "daemonset/drover-agent"));
    await expectUntouched(before);
    expect(silenceMs).toBeLessThan(5000);
    await waitFor("inst/vm", "condition=Ready", 60, NAMESPACE);
  });

  test("when both operators are killed", async () => {
    await replacePods("operator", "deployment/drover-operator");
    await expectUntouched(before);
    await kubectl(["-n", NAMESPACE, "annotate", "inst/vm", `test=${Date.now()}`, "--overwrite"]);
    await waitFor("inst/vm", "condition=Ready", 60, NAMESPACE);
  });

  test("when OVN's databases, its controllers and the switch's launchers are killed", async () => {
    await replacePods("ovn-central", "statefulset/ovn-central");
    await replacePods("ovn-controller", "daemonset/ovn-controller");
    await replacePods("ovs", "daemonset/drover-ovs");
    await expectUntouched(before);
  });

  test("when the API server is frozen for 10 s", async () => {
    await freezeApiServer();
    try {
      await new Promise((resolve) => setTimeout(resolve, 10_000));
      expect((await status(probe, address)).bootId).toBe(before.guest.bootId);
    } finally {
      await thawApiServer();
    }
    await expectUntouched(before);
    await waitFor("inst/vm", "condition=Ready", 60, NAMESPACE);
  });

  test("when kubelet and containerd of its node are killed", async () => {
    // In this order: a kubelet that finds no containerd at its start ends, and nothing here starts it again.
    await restartContainerd("n1");
    await restartKubelet("n1");
    await eventually(
      async () => (await kubectl(["get", "--raw", "/api/v1/nodes/n1/proxy/healthz"])) === "ok",
      60,
      "the new kubelet answers",
    );
    await expectUntouched(before);
  });

  test("when OVN's northbound database is emptied", async () => {
    // A kubelet that has just started does not know its containers yet.
    const inNorthbound = `-n ${SYSTEM} exec ovn-central-0 -c nb -- ovn-nbctl --db=unix:/run/ovn/ovnnb_db.sock --if-exists`.split(
      " ",
    );
    // A kubelet that has just started does not know its containers yet.
    const nbctl = (...args: string[]) => eventually(() => kubectl([...inNorthbound, ...args]), 30, `ovn-nbctl ${args.join(" ")}`);
    for (const row of (await nbctl("--bare", "--columns=_uuid", "list", "Logical_Switch")).split(/\s+/).filter(Boolean)) {
      await nbctl("ls-del", row);
    }
    for (const row of (await nbctl("--bare", "--columns=_uuid", "list", "Logical_Router")).split(/\s+/).filter(Boolean)) {
      await nbctl("lr-del", row);
    }
    await eventually(
      async () => (await nbctl("--bare", "--columns=name", "list", "Logical_Switch_Port")).includes(`${NAMESPACE}.vm.eth0`),
      30,
      "the port is made again",
    );
    // The observer's own port was ours to lose: it is no Drover row, so it is made again by hand.
    await probe.remove();
    probe = await observer({ node: "n3", namespace: NAMESPACE, network: "net" });
    await expectUntouched(before);
  });

  test("when the chart is upgraded", async () => {
    const up = lab();
    const env = { KUBECONFIG: up.kubeconfig };
    const chart = new URL("../../manifests/chart", import.meta.url).pathname;
    await run(
      up.helm,
      ["upgrade", "drover", chart, "-n", SYSTEM, "--reuse-values", "--set", "logLevel=debug", "--wait", "--timeout=180s"],
      {
        env,
        deadlineMs: 200_000,
      },
    );
    await expectUntouched(before);
    await waitFor("inst/vm", "condition=Ready", 60, NAMESPACE);
  });
});

test("a node whose power is cut makes its instance Unknown; with power it runs again, with every record", async () => {
  const before = await snapshot();
  const startOf = async () => (await instance(NAMESPACE, "vm")).status?.guest?.startedAt;
  const started = await startOf();
  await powerCut("n1");
  await waitFor("inst/vm", "jsonpath={.status.phase}=Unknown", 90, NAMESPACE);
  const claim = await kubectl(["-n", NAMESPACE, "get", "pods", "-l", "drover.dev/claim=vm", "-o", "name"]);
  expect(claim.split("\n")).toHaveLength(1);
  await powerOn("n1", { ready: true });
  // Until the agent is back, the status tells what was; a new start is the proof that it is.
  await eventually(async () => (await startOf()) !== started, 180, "the instance is started again");
  await waitFor("inst/vm", "condition=Ready", 60, NAMESPACE);
  const after = await snapshot();
  expect(after.guest.bootId).not.toBe(before.guest.bootId);
  expect(after.guest.lastAcked).toBeGreaterThanOrEqual(before.guest.lastAcked);
  const { problem } = await checkDisk(await instance(NAMESPACE, "vm"), before.guest.lastAcked);
  expect(problem).toBeUndefined();
});
