/** The chart's admission policies: what agents may write, and who makes and deletes claims. */
import { readFile } from "node:fs/promises";
import { Agent, request } from "undici";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import type { Instance } from "../../crds/instance.ts";
import { claimPod } from "../../operator/instance/claim.ts";
import { installChart, type Installed, instance, NAMESPACE, OPERATOR } from "./chart-kit.ts";
import type { Kubectl } from "./kubectl.ts";
import { type Json, mergePatch } from "./merge-patch.ts";

let installed: Installed;
let kubectl: Kubectl;
let server: string;
let api: Agent;

beforeAll(async () => {
  installed = await installChart();
  ({ kubectl } = installed);
  ({ server } = installed.plane);
  api = new Agent({ connect: { ca: await readFile(installed.plane.pki.ca) } });
  // A policy holds a moment after it was made.
  const lease = { apiVersion: "coordination.k8s.io/v1", kind: "Lease", metadata: { name: "drover-operator" } };
  const asAgent = ["--as", `system:serviceaccount:${NAMESPACE}:drover-agent`, "-n", NAMESPACE];
  const forbidden = () => kubectl.refusal(["create", "--dry-run=server", ...asAgent, "-f", "-"], lease);
  await vi.waitFor(forbidden, { timeout: 30_000, interval: 250 });
});
afterAll(async () => {
  await api?.close();
  await installed?.stop();
});

/** A token as a pod of this service account gets it on its node. */
const tokenOn = async (node: string): Promise<string> => {
  const name = `agent-${node}`;
  const spec = { nodeName: node, serviceAccountName: "drover-agent", containers: [{ name: "agent", image: "none" }] };
  await kubectl.accepted(["apply", "-n", NAMESPACE, "-f", "-"], { apiVersion: "v1", kind: "Pod", metadata: { name }, spec });
  const bound = ["--bound-object-kind", "Pod", "--bound-object-name", name];
  return kubectl.accepted(["create", "token", "drover-agent", "-n", NAMESPACE, ...bound]);
};

describe("an agent", () => {
  const tokens = new Map<string, string>();
  const JSON_PATCH = "application/json-patch+json";
  const MERGE_PATCH = "application/merge-patch+json";
  const send = async (node: string, method: "PATCH" | "POST" | "DELETE", url: string, body: Json, type = MERGE_PATCH) => {
    const answer = await request(`${server}${url}`, {
      method,
      dispatcher: api,
      headers: {
        authorization: `Bearer ${tokens.get(node) ?? ""}`,
        "content-type": method === "POST" ? "application/json" : type,
      },
      body: JSON.stringify(body),
    });
    const said = (await answer.body.json()) as { message?: string };
    return answer.statusCode < 300 ? "ok" : (said.message ?? String(answer.statusCode));
  };
  const shop = "/apis/drover.dev/v1alpha1/namespaces/default/instances/shop";
  const status = (node: string, body: Json) => send(node, "PATCH", `${shop}/status`, { status: body });
  const node = (as: string, op: string, where: string, value?: Json) =>
    send(as, "PATCH", "/api/v1/nodes/n1/status", [{ op, path: where, ...(value === undefined ? {} : { value }) }], JSON_PATCH);

  beforeAll(async () => {
    for (const name of ["n1", "n2"]) tokens.set(name, await tokenOn(name));
    tokens.set("nowhere", await kubectl.accepted(["create", "token", "drover-agent", "-n", NAMESPACE]));
    await kubectl.accepted(["apply", "-f", "-"], instance);
    const patch = JSON.stringify({ status: { nodeName: "n1", phase: "Starting" } });
    await kubectl.accepted(["patch", "instance", "shop", "--subresource=status", "--type=merge", "-p", patch]);
  });

  it("writes status.guest of an instance on its node", async () => {
    expect(await status("n1", { guest: { state: "Running", pid: 7 } })).toBe("ok");
    const applied = { apiVersion: "drover.dev/v1alpha1", kind: "Instance", metadata: { name: "shop" } };
    const guest = { status: { guest: { state: "Running", pid: 8 } } };
    const url = `${shop}/status?fieldManager=drover-agent&force=true`;
    expect(await send("n1", "PATCH", url, mergePatch(applied, guest), "application/apply-patch+yaml")).toBe("ok");
  });

  it.each<[string, Json]>([
    ["another phase", { phase: "Running" }],
    ["no phase", { phase: null }],
    ["a new field", { ip: "10.1.0.5" }],
    ["another node", { nodeName: "n2" }],
    ["no status at all", null],
  ])("may not write what is not its own: %s", async (_, body) => {
    expect(await status("n1", body)).toContain("an agent may write nothing of an instance's status but status.guest");
  });

  it("may not write another node's instance", async () => {
    const said = await status("n2", { guest: { state: "Stopped" } });
    expect(said).toContain("instance shop does not run on node n2, and its agent may not write it");
  });

  it("is believed only with its pod's token", async () => {
    expect(await status("nowhere", { guest: { state: "Stopped" } })).toContain("this token belongs to no node");
    const said = await kubectl.refusal(
      ["apply", "--server-side", "--as", `system:serviceaccount:${NAMESPACE}:drover-agent`, "-f", "-"],
      {
        apiVersion: "drover.dev/v1alpha1",
        kind: "Host",
        metadata: { name: "n1" },
      },
    );
    expect(said).toContain("may write its own Host only");
  });

  it("may not write a spec, nor delete", async () => {
    expect(await send("n1", "PATCH", shop, { spec: { power: "Stopped" } })).toContain("cannot patch resource");
    expect(await send("n1", "DELETE", shop, null)).toContain("cannot delete resource");
  });

  describe("and a move", () => {
    const move = "/apis/drover.dev/v1alpha1/namespaces/default/migrations/away";
    const patch = (as: string, body: Json) => send(as, "PATCH", `${move}/status`, { status: body });
    const record = (as: string, attempt: number, state: string) => patch(as, { handover: { attempt, state } });
    const set = async (body: Json) => {
      const args = ["patch", "migration", "away", "--subresource=status", "--type=merge"];
      await kubectl.accepted([...args, "-p", JSON.stringify({ status: body })]);
    };

    beforeAll(async () => {
      tokens.set("n3", await installed.makeNode("n3").then(() => tokenOn("n3")));
      const migration = {
        apiVersion: "drover.dev/v1alpha1",
        kind: "Migration",
        metadata: { name: "away" },
        spec: { instance: "shop" },
      };
      await kubectl.accepted(["apply", "-f", "-"], migration);
      await set({ phase: "Preparing", sourceNode: "n1", targetNode: "n2", handover: { attempt: 1, state: "Copying" } });
    });

    it("says its own side of it", async () => {
      expect(await patch("n1", { source: { attempt: 1, state: "Waiting" } })).toBe("ok");
      expect(await patch("n2", { target: { attempt: 1, state: "Ready", endpoint: "10.0.0.2:9413" } })).toBe("ok");
      const applied = { apiVersion: "drover.dev/v1alpha1", kind: "Migration", metadata: { name: "away", namespace: "default" } };
      const url = `${move}/status?fieldManager=drover-agent-source&force=true`;
      const words = { status: { source: { attempt: 1, state: "CopyingDisk" } } };
      expect(await send("n1", "PATCH", url, mergePatch(applied, words), "application/apply-patch+yaml")).toBe("ok");
    });

    it("says nothing of the other side, nor of what is the operator's", async () => {
      const own = "an agent may write nothing of a migration's status but status.source";
      expect(await patch("n1", { target: { attempt: 1, state: "Running" } })).toContain(own);
      expect(await patch("n2", { source: { attempt: 1, state: "Released" } })).toContain(own);
      expect(await patch("n1", { phase: "Succeeded" })).toContain(own);
      expect(await patch("n1", { targetNode: "n1" })).toContain(own);
      expect(await send("n1", "PATCH", `${move}/status`, { status: null })).toContain("nothing of a migration's status");
      expect(await send("n1", "PATCH", move, { spec: { cancel: true } })).toContain("cannot patch resource");
    });

    it("writes nothing of one that has nothing to do with its node", async () => {
      const said = "migration away neither leaves node n3 nor goes there, and its agent may not write it";
      expect(await patch("n3", { source: { attempt: 1, state: "Waiting" } })).toContain(said);
      expect(await record("n3", 1, "Source")).toContain(said);
      expect(await record("nowhere", 1, "Source")).toContain("this token belongs to no node");
    });

    it("takes only the steps of the record that are its side's", async () => {
      const refused = "an agent may not change status.handover in this way";
      expect(await record("n2", 1, "Handover")).toContain(refused);
      expect(await record("n1", 1, "Done")).toContain(refused);
      expect(await record("n1", 2, "Handover")).toContain(refused);
      expect(await patch("n1", { handover: null })).toContain(refused);
      expect(await record("n1", 1, "Handover")).toBe("ok");
      expect(await record("n1", 1, "Done")).toContain(refused);
      expect(await record("n2", 1, "Copying")).toContain(refused);
      expect(await record("n2", 1, "Done")).toBe("ok");
      expect(await record("n1", 1, "Source")).toContain(refused);
      await set({ handover: { attempt: 2, state: "Copying" } });
      expect(await record("n2", 2, "Source")).toBe("ok");
      expect(await record("n1", 2, "Copying")).toContain(refused);
    });
  });

  it("says both sides of an update in place, which is all on its node, and takes every step of its record", async () => {
    const migration = {
      apiVersion: "drover.dev/v1alpha1",
      kind: "Migration",
      metadata: { name: "up" },
      spec: { instance: "shop", mode: "InPlace" },
    };
    await kubectl.accepted(["apply", "-f", "-"], migration);
    const begun = { sourceNode: "n1", targetNode: "n1", handover: { attempt: 1, state: "Copying" } };
    const runtime = { from: { version: "r1" }, to: { version: "r2", qemu: "10.0.13" } };
    const args = ["patch", "migration", "up", "--subresource=status", "--type=merge"];
    await kubectl.accepted([...args, "-p", JSON.stringify({ status: { ...begun, runtime } })]);
    const url = "/apis/drover.dev/v1alpha1/namespaces/default/migrations/up/status";
    const patch = (as: string, body: Json) => send(as, "PATCH", url, { status: body });
    expect(await patch("n1", { source: { attempt: 1, state: "Waiting" } })).toBe("ok");
    expect(await patch("n1", { target: { attempt: 1, state: "Ready" } })).toBe("ok");
    expect(await patch("n2", { target: { attempt: 1, state: "Running" } })).toContain("neither leaves node n2 nor goes there");
    expect(await patch("n1", { runtime: { from: { version: "r1" }, to: { version: "r3" } } })).toContain(
      "an agent may write nothing of a migration's status",
    );
    for (const state of ["Handover", "Done"]) expect(await patch("n1", { handover: { attempt: 1, state } })).toBe("ok");
  });

  it("may not make, change or delete a roll-out", async () => {
    const url = "/apis/drover.dev/v1alpha1/rollouts";
    const rollout = { apiVersion: "drover.dev/v1alpha1", kind: "Rollout", metadata: { name: "r2" }, spec: {} };
    expect(await send("n1", "POST", url, rollout)).toContain("cannot create resource");
    await kubectl.accepted(["apply", "-f", "-"], rollout);
    expect(await send("n1", "PATCH", `${url}/r2`, { spec: { paused: true } })).toContain("cannot patch resource");
    expect(await send("n1", "DELETE", `${url}/r2`, null)).toContain("cannot delete resource");
  });

  it("writes its own Host only", async () => {
    const url = "/apis/drover.dev/v1alpha1/hosts";
    const host = (name: string) => ({ apiVersion: "drover.dev/v1alpha1", kind: "Host", metadata: { name } });
    const apply = (as: string) =>
      send(as, "PATCH", `${url}/n1?fieldManager=drover-agent&force=true`, host("n1"), "application/apply-patch+yaml");
    expect(await apply("n2")).toContain("the agent of node n2 may write its own Host only, not n1");
    expect(await apply("n1")).toBe("ok");
    expect(await send("n1", "PATCH", `${url}/n1/status`, { status: { accelerator: "TCG" } })).toBe("ok");
    const runtimes = [{ version: "r2", qemuVersion: "10.0.13", machineTypes: ["pc-q35-10.0"], current: true, instances: 3 }];
    expect(await send("n1", "PATCH", `${url}/n1/status`, { status: { runtimes, updated: "3/4" } })).toBe("ok");
    expect(await send("n2", "PATCH", `${url}/n1/status`, { status: { accelerator: "KVM" } })).toContain(
      "its own Host only, not n1",
    );
    expect(await send("n1", "POST", url, host("n2"))).toContain("the agent of node n1 may write its own Host only, not n2");
  });

  it("writes its own Lease only", async () => {
    const url = `/apis/coordination.k8s.io/v1/namespaces/${NAMESPACE}/leases`;
    const lease = (name: string) => ({ apiVersion: "coordination.k8s.io/v1", kind: "Lease", metadata: { name } });
    expect(await send("n1", "POST", url, lease("drover-agent-n1"))).toBe("ok");
    for (const name of ["drover-agent-n2", "drover-operator"]) {
      expect(await send("n1", "POST", url, lease(name))).toContain("may write its own Lease only");
    }
  });

  it("writes of its own Node nothing but drover.dev/ resources", async () => {
    const pool = "/status/capacity/drover.dev~1pool.fast";
    expect(await node("n1", "add", pool, "8")).toBe("ok");
    expect(await node("n2", "add", pool, "9")).toContain("the status of its own Node only, not n1");
    const refusals = [
      await node("n1", "add", "/status/capacity/cpu", "400"),
      await node("n1", "remove", "/status/capacity/memory"),
      await node("n1", "remove", "/status/images"),
      await node("n1", "add", "/status/phase", "Terminated"),
    ];
    for (const said of refusals) expect(said).toContain("nothing of its Node's status but the capacity of drover.dev/ resources");
    expect(await node("n1", "add", "/metadata/labels/rack", "b")).toContain("may not change its Node's labels");
    expect(await node("n1", "remove", pool)).toBe("ok");
  });
});

const memory = { memory: "64Mi" };
const RESIZE = '{"spec":{"containers":[{"name":"a","resources":{"requests":{"memory":"8Mi"},"limits":{"memory":"8Mi"}}}]}}';

describe("a claim", () => {
  const pod = (name: string, labels: Json, more: Json = {}) =>
    mergePatch(
      {
        apiVersion: "v1",
        kind: "Pod",
        metadata: { name, labels },
        spec: { nodeName: "n1", containers: [{ name: "a", image: "none", resources: { requests: memory, limits: memory } }] },
      },
      { spec: more },
    );
  const claim = pod("drover-shop-12345", { "drover.dev/claim": "shop" }, { priorityClassName: "drover-claim" });

  beforeAll(async () => {
    await kubectl.accepted(["apply", "-f", "-"], { apiVersion: "v1", kind: "ServiceAccount", metadata: { name: "default" } });
    await kubectl.accepted(["create", "--as", OPERATOR, "-f", "-"], claim);
    await kubectl.accepted(["create", "-f", "-"], pod("other", {}));
    const budget = ["create", "pdb", "drover-claims", "--min-available=1000000", "--selector=drover.dev/claim"];
    await kubectl.accepted([...budget, "--as", OPERATOR]);
  });

  it.each([
    ["by hand", ["pod", "drover-shop-12345"]],
    ["with grace 0", ["pod", "drover-shop-12345", "--grace-period=0", "--force"]],
    ["with its label", ["pods", "-l", "drover.dev/claim"]],
    ["with the whole collection", ["--raw", "/api/v1/namespaces/default/pods"]],
  ])("is not deleted %s", async (_, args) => {
    const said = await kubectl.refusal(["delete", ...args]);
    expect(said).toContain(
      "pod drover-shop-12345 is the place of instance shop on its node, and deleting it would kill the guest",
    );
    expect(said).toContain("kubectl delete instance shop -n default");
  });

  it("is made by the operator only", async () => {
    const labelled = await kubectl.refusal(["create", "-f", "-"], pod("mine", { "drover.dev/claim": "shop" }));
    expect(labelled).toContain("only Drover's operator may set, change or remove it");
    const important = await kubectl.refusal(["create", "-f", "-"], pod("mine", {}, { priorityClassName: "drover-claim" }));
    expect(important).toContain("the PriorityClass drover-claim is for the claims of instances");
  });

  it("keeps its label, and takes others", async () => {
    for (const label of ["drover.dev/claim-", "drover.dev/claim=other"]) {
      const said = await kubectl.refusal(["label", "pod", "drover-shop-12345", label, "--overwrite"]);
      expect(said).toContain("only Drover's operator may set, change or remove it");
    }
    expect(await kubectl.refusal(["label", "pod", "other", "drover.dev/claim=shop"])).toContain("only Drover's operator");
    expect(await kubectl.accepted(["label", "pod", "drover-shop-12345", "team=shop"])).toContain("labeled");
  });

  it.each([
    ["a deadline", ["patch", "pod", "drover-shop-12345", "-p", '{"spec":{"activeDeadlineSeconds":1}}']],
    ["another image", ["set", "image", "pod/drover-shop-12345", "a=other"]],
    ["less memory", ["patch", "pod", "drover-shop-12345", "--subresource=resize", "-p", RESIZE]],
    ["a container more", ["debug", "drover-shop-12345", "--image=none"]],
  ])("gets from nobody %s", async (_, args) => {
    expect(await kubectl.refusal(args)).toContain("is the place of instance shop on its node; only Drover changes it");
  });

  it.each([
    ["deleted", ["delete", "pdb", "drover-claims"]],
    ["deleted with the collection", ["delete", "--raw", "/apis/policy/v1/namespaces/default/poddisruptionbudgets"]],
    ["weakened", ["patch", "pdb", "drover-claims", "--type=merge", "-p", '{"spec":{"minAvailable":0}}']],
  ])("has a budget that is not %s", async (_, args) => {
    expect(await kubectl.refusal(args)).toContain("the PodDisruptionBudget drover-claims keeps a drain from killing guests");
  });

  it("is deleted by the operator, and then ended by whom it concerns", async () => {
    await kubectl.accepted(["delete", "pod", "drover-shop-12345", "--wait=false", "--as", OPERATOR]);
    const kubelet = ["--as", "system:node:n1", "--as-group", "system:nodes"];
    const ended = await kubectl.accepted(["delete", "pod", "drover-shop-12345", "--grace-period=0", "--force", ...kubelet]);
    expect(ended).toContain("deleted");
  });
});

describe("a claim as the operator makes it", () => {
  it("fits a namespace that allows restricted pods only", async () => {
    const uid = "11111111-1111-1111-1111-111111111111";
    const strict: Instance = {
      ...(instance as Pick<Instance, "apiVersion" | "kind">),
      metadata: { name: "shop", namespace: "strict", uid, resourceVersion: "1", generation: 1, creationTimestamp: "" },
      spec: { ...instance.spec, type: "VirtualMachine", power: "Running", restart: "Never", onDrain: "LiveMigrate" },
    };
    const settings = {
      holderImage: "none",
      holderPullPolicy: "Never",
      cpuOvercommit: 4,
      priorityClassName: "drover-claim",
    } as const;
    await kubectl.accepted(["create", "namespace", "strict"]);
    await kubectl.accepted(["label", "namespace", "strict", "pod-security.kubernetes.io/enforce=restricted"]);
    await kubectl.accepted(["create", "serviceaccount", "default", "-n", "strict"]);
    const claim = JSON.parse(JSON.stringify(claimPod(strict, { serial: 1, avoidNodes: [] }, settings))) as Json;
    expect(await kubectl.accepted(["create", "--validate=strict", "--as", OPERATOR, "-f", "-"], claim)).toContain("created");
  });
});
