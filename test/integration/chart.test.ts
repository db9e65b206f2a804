/** The Helm chart against a real API server: what it refuses, what it keeps, and that its admission policies hold. */
import { X509Certificate } from "node:crypto";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { execa } from "execa";
import { Agent, request } from "undici";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { binariesDirectory } from "../../hack/control-plane/index.ts";
import { type LocalControlPlane, startLocalControlPlane } from "../../hack/control-plane/local.ts";
import { type Kubectl, kubectlFor } from "./kubectl.ts";
import { type Json, mergePatch } from "./merge-patch.ts";

const NAMESPACE = "drover-system";
const OPERATOR = `system:serviceaccount:${NAMESPACE}:drover-operator`;
const chart = path.join(import.meta.dirname, "../../manifests/chart");

let plane: LocalControlPlane;
let kubectl: Kubectl;
let home: string;
let api: Agent;

const helm = async (...args: string[]): Promise<string> => {
  const env = { KUBECONFIG: plane.kubeconfig, HELM_CACHE_HOME: home, HELM_CONFIG_HOME: home, HELM_DATA_HOME: home };
  const result = await execa(path.join(binariesDirectory(), "helm"), args, { env, timeout: 120_000, stdin: "ignore" });
  return result.stdout;
};
const set = (values: string[]): string[] => values.flatMap((value) => ["--set", value]);
const render = (...values: string[]) => helm("template", "drover", chart, "--namespace", NAMESPACE, ...set(values));
const upgrade = (...values: string[]) => helm("upgrade", "--install", "drover", chart, "--namespace", NAMESPACE, ...set(values));

const makeNode = async (name: string): Promise<void> => {
  await kubectl.accepted(["create", "-f", "-"], { apiVersion: "v1", kind: "Node", metadata: { name, labels: { rack: "a" } } });
  const status = { capacity: { cpu: "4", memory: "8Gi" }, images: [{ names: ["a"], sizeBytes: 1 }] };
  await kubectl.accepted(["patch", "node", name, "--subresource=status", "--type=merge", "-p", JSON.stringify({ status })]);
};

beforeAll(async () => {
  plane = await startLocalControlPlane();
  kubectl = kubectlFor(plane.kubeconfig);
  home = await mkdtemp(path.join(tmpdir(), "drover-helm-"));
  api = new Agent({ connect: { ca: await readFile(plane.pki.ca) } });
  await kubectl.accepted(["create", "namespace", NAMESPACE]);
  await makeNode("n1");
  await makeNode("n2");
  await upgrade();
});
afterAll(async () => {
  await api?.close();
  await plane?.stop();
  if (home) await rm(home, { recursive: true, force: true });
});

describe("values", () => {
  it("pass helm's lint", async () => {
    expect(await helm("lint", "--strict", chart)).toContain("0 chart(s) failed");
  });

  it.each([
    ["operator.replicaz=1", "at '/operator': additional properties 'replicaz' not allowed"],
    ["operator.replicas=0", "at '/operator/replicas': minimum: got 0, want 1"],
    ["operator.cpuOvercommit=0.5", "at '/operator/cpuOvercommit'"],
    ["nodeAgent.accelerator=xen", "at '/nodeAgent/accelerator': value must be one of 'auto', 'kvm', 'tcg'"],
    ["nodeAgent.maxUnavailable=0%", "at '/nodeAgent/maxUnavailable'"],
    ["images.deniedCIDRs={10.0.0.1}", "at '/images/deniedCIDRs/0'"],
    ["claims.preemptionPolicy=Always", "at '/claims/preemptionPolicy'"],
    ["ovs.underlay.cidr=10.97", "at '/ovs/underlay/cidr'"],
    ["ovn.mtu=900", "at '/ovn/mtu': minimum: got 900, want 1,280"],
    ["ovn.external.northbound=ssl:10.0.0.1:6641", "at '/ovn/external/southbound'"],
    ["dev.enabled=true", "dev.enabled needs dev.path"],
    ["ovs.datapath=userspace,ovs.underlay.mode=none", "ovs.datapath userspace needs ovs.underlay.mode macvlan"],
  ])("%s is refused, and named", async (value, says) => {
    await expect(render(value)).rejects.toThrow(says);
  });

  it.each([
    ["as they are", []],
    ["for developing", ["dev.enabled=true", "dev.path=/src/drover"]],
    ["with an OVN that exists", ["ovn.external.northbound=ssl:10.0.0.5:6641", "ovn.external.southbound=ssl:10.0.0.5:6642"]],
    ["with globals of a parent chart", ["global.region=here"]],
  ])("%s render to what the API server takes, strictly", async (_, values) => {
    const said = await kubectl.accepted(["apply", "--dry-run=server", "--validate=strict", "-f", "-"], await render(...values));
    expect(said).toContain("daemonset.apps/drover-agent");
  });

  it("need no second upgrade: the same values change nothing", async () => {
    const before = await kubectl.accepted([
      "get",
      "all,secrets,crd",
      "-n",
      NAMESPACE,
      "-o",
      "jsonpath={.items[*].metadata.generation}",
    ]);
    await upgrade();
    const after = await kubectl.accepted([
      "get",
      "all,secrets,crd",
      "-n",
      NAMESPACE,
      "-o",
      "jsonpath={.items[*].metadata.generation}",
    ]);
    expect(after).toBe(before);
  });
});

describe("OVN's keys", () => {
  const certificates = async (secret: string) => {
    const field = async (key: string) => {
      const text = await kubectl.accepted(["get", "secret", secret, "-n", NAMESPACE, "-o", `jsonpath={.data.${key}}`]);
      return new X509Certificate(Buffer.from(text, "base64"));
    };
    return { ca: await field("ca\\.crt"), own: await field("tls\\.crt") };
  };

  it("prove server and client to each other, per database", async () => {
    const [nb, operator, sb, controller] = await Promise.all(
      ["nb", "operator", "sb", "controller"].map((name) => certificates(`drover-ovn-${name}`)),
    );
    const signs = (ca?: { ca: X509Certificate }, one?: { own: X509Certificate }) => ca && one && one.own.verify(ca.ca.publicKey);
    expect([signs(nb, operator), signs(operator, nb), signs(sb, controller), signs(controller, sb)]).toEqual([
      true,
      true,
      true,
      true,
    ]);
    // What a node holds opens nothing of the northbound database.
    expect(signs(nb, controller)).toBe(false);
    expect(nb?.own.checkHost("ovn-central")).toBe("ovn-central");
  });

  it("are kept by an upgrade, and renewed together when asked", async () => {
    const serials = async () => {
      const all = await Promise.all(["nb", "operator", "sb", "controller"].map((name) => certificates(`drover-ovn-${name}`)));
      return all.map(({ own }) => own.serialNumber);
    };
    const before = await serials();
    await upgrade("logLevel=debug");
    expect(await serials()).toEqual(before);
    await upgrade("ovn.tls.renew=2026");
    const renewed = await serials();
    expect(renewed.filter((serial) => before.includes(serial))).toEqual([]);
    await upgrade("ovn.tls.renew=2026");
    expect(await serials()).toEqual(renewed);
  });
});

describe("ovn-central", () => {
  it("stays on the node that has its databases", async () => {
    const where = () =>
      kubectl.accepted(["get", "statefulset", "ovn-central", "-n", NAMESPACE, "-o", "jsonpath={.spec.template.spec.affinity}"]);
    const before = await where();
    expect(before).toContain('"n1"');
    await makeNode("a0");
    await upgrade();
    expect(await where()).toBe(before);
  });
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
    const answer = await request(`${plane.server}${url}`, {
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
  const instance = "/apis/drover.dev/v1alpha1/namespaces/default/instances/shop";
  const status = (node: string, body: Json) => send(node, "PATCH", `${instance}/status`, { status: body });
  const node = (as: string, op: string, where: string, value?: Json) =>
    send(as, "PATCH", "/api/v1/nodes/n1/status", [{ op, path: where, ...(value === undefined ? {} : { value }) }], JSON_PATCH);

  beforeAll(async () => {
    for (const name of ["n1", "n2"]) tokens.set(name, await tokenOn(name));
    tokens.set("nowhere", await kubectl.accepted(["create", "token", "drover-agent", "-n", NAMESPACE]));
    const disk = { pool: "fast", size: "1Gi" };
    const image = { url: "http://images.example/a.qcow2", checksum: `sha256:${"0".repeat(64)}` };
    const spec = { type: "VirtualMachine", cpu: 1, memory: "256Mi", rootDisk: disk, image };
    const object = { apiVersion: "drover.dev/v1alpha1", kind: "Instance", metadata: { name: "shop" }, spec };
    await kubectl.accepted(["wait", "--for=condition=Established", "--timeout=60s", "crd", "--all"]);
    await kubectl.accepted(["apply", "-f", "-"], object);
    const patch = JSON.stringify({ status: { nodeName: "n1", phase: "Starting" } });
    await kubectl.accepted(["patch", "instance", "shop", "--subresource=status", "--type=merge", "-p", patch]);
  });

  it("writes status.guest of an instance on its node", async () => {
    expect(await status("n1", { guest: { state: "Running", pid: 7 } })).toBe("ok");
    const applied = { apiVersion: "drover.dev/v1alpha1", kind: "Instance", metadata: { name: "shop" } };
    const guest = { status: { guest: { state: "Running", pid: 8 } } };
    const url = `${instance}/status?fieldManager=drover-agent&force=true`;
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
    expect(await send("n1", "PATCH", instance, { spec: { power: "Stopped" } })).toContain("cannot patch resource");
    expect(await send("n1", "DELETE", instance, null)).toContain("cannot delete resource");
  });

  it("writes its own Host only", async () => {
    const url = "/apis/drover.dev/v1alpha1/hosts";
    const host = (name: string) => ({ apiVersion: "drover.dev/v1alpha1", kind: "Host", metadata: { name } });
    expect(await send("n1", "POST", url, host("n1"))).toBe("ok");
    expect(await send("n1", "PATCH", `${url}/n1/status`, { status: { accelerator: "TCG" } })).toBe("ok");
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

describe("a claim", () => {
  const pod = (name: string, labels: Json, more: Json = {}) =>
    mergePatch(
      {
        apiVersion: "v1",
        kind: "Pod",
        metadata: { name, labels },
        spec: { nodeName: "n1", containers: [{ name: "a", image: "none" }] },
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

describe("uninstalled", () => {
  it("leaves every instance, and comes back", async () => {
    await helm("uninstall", "drover", "--namespace", NAMESPACE);
    expect(await kubectl.accepted(["get", "instance", "shop", "-o", "name"])).toBe("instance.drover.dev/shop");
    expect(await kubectl.accepted(["get", "validatingadmissionpolicies", "-o", "name"])).not.toContain("drover");
    expect(await upgrade()).toContain("STATUS: deployed");
    expect(await kubectl.accepted(["get", "instance", "shop", "-o", "name"])).toBe("instance.drover.dev/shop");
  });
});
