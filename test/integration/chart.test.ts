/** The Helm chart against a real API server: what it refuses, what it keeps, what it says. */
import { X509Certificate } from "node:crypto";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { chart, installChart, type Installed, instance, NAMESPACE } from "./chart-kit.ts";
import type { Kubectl } from "./kubectl.ts";

let installed: Installed;
let kubectl: Kubectl;
const helm = (...args: string[]) => installed.helm(...args);
const render = (...values: string[]) => installed.render(...values);
const upgrade = (...values: string[]) => installed.upgrade(...values);

beforeAll(async () => {
  installed = await installChart();
  ({ kubectl } = installed);
});
afterAll(() => installed?.stop());

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
    ["runtimeUpdate.mode=Sometimes", "at '/runtimeUpdate/mode': value must be one of 'Auto', 'Manual', 'Off'"],
    ["runtimeUpdate.perNode=0", "at '/runtimeUpdate/perNode': minimum: got 0, want 1"],
    ["runtimeUpdate.maxPause=10", "at '/runtimeUpdate/maxPause'"],
    ["runtimeUpdate.window.start=24:00", "at '/runtimeUpdate/window/start'"],
    ["runtimeUpdate.window.start=22:00", "at '/runtimeUpdate/window/end'"],
    ["runtimeUpdate.window.start=22:00,runtimeUpdate.window.end=22:00", "runtimeUpdate.window begins and ends at 22:00"],
    ["runtimeUpdate.window.begin=22:00", "at '/runtimeUpdate/window': additional properties 'begin' not allowed"],
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
    ["with a window for updates", ["runtimeUpdate.window.start=22:00", "runtimeUpdate.window.end=04:30"]],
    ["with globals of a parent chart", ["global.region=here"]],
  ])("%s render to what the API server takes, strictly", async (_, values) => {
    const said = await kubectl.accepted(["apply", "--dry-run=server", "--validate=strict", "-f", "-"], await render(...values));
    expect(said).toContain("daemonset.apps/drover-agent");
  });

  it("name another runtime than that of the other images' tag", async () => {
    const lines = (await render("image.runtime=registry.example/qemu:next"))
      .split("\n")
      .filter((line) => line.includes("image: "));
    expect(lines.filter((line) => line.includes("-runtime:"))).toEqual([]);
    expect(lines.filter((line) => line.trim() === "image: registry.example/qemu:next")).toHaveLength(1);
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
    const [nb, operator, sb] = await Promise.all(["nb", "operator", "sb"].map((name) => certificates(`drover-ovn-${name}`)));
    const signs = (ca?: { ca: X509Certificate }, one?: { own: X509Certificate }) => ca && one && one.own.verify(ca.ca.publicKey);
    expect([signs(nb, operator), signs(operator, nb), signs(sb, sb)]).toEqual([true, true, true]);
    const agents = await certificates("drover-agent-ca");
    // What a node holds opens nothing of the northbound database, and nobody else's certificate the southbound one.
    expect([signs(nb, agents), signs(sb, operator), signs(agents, sb)]).toEqual([false, false, false]);
    const trusted = ["get", "configmap", "-n", NAMESPACE, "-o", "jsonpath={.data.ca\\.crt}"];
    const southbound = await kubectl.accepted([...trusted, "drover-ovn-southbound"]);
    expect(new X509Certificate(southbound).fingerprint256).toBe(sb?.ca.fingerprint256);
    expect(new X509Certificate(await kubectl.accepted([...trusted, "drover-agent-ca"])).fingerprint256).toBe(
      agents.own.fingerprint256,
    );
    expect(nb?.own.checkHost("ovn-central")).toBe("ovn-central");
  });

  it("are kept by an upgrade, and renewed together when asked", async () => {
    const serials = async () => {
      const all = await Promise.all(["nb", "operator", "sb"].map((name) => certificates(`drover-ovn-${name}`)));
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

describe("secrets", () => {
  it("are mounted by no pod that runs on every node: a node may read what its pods mount", async () => {
    const path = "jsonpath={.items[*].spec.template.spec.volumes[*].secret.secretName}";
    expect(await kubectl.accepted(["get", "daemonsets", "-n", NAMESPACE, "-o", path])).toBe("");
    const operator = await kubectl.accepted(["get", "deployments", "-n", NAMESPACE, "-o", path]);
    expect(operator.split(" ").toSorted()).toEqual(["drover-agent-ca", "drover-operator-webhook", "drover-ovn-operator"]);
  });
});

describe("ovn-central", () => {
  it("stays on the node that has its databases", async () => {
    const where = () =>
      kubectl.accepted(["get", "statefulset", "ovn-central", "-n", NAMESPACE, "-o", "jsonpath={.spec.template.spec.affinity}"]);
    const before = await where();
    expect(before).toContain('"n1"');
    await installed.makeNode("a0");
    await upgrade();
    expect(await where()).toBe(before);
  });
});

describe("notes", () => {
  it("tell the next step, and what the namespace lacks", async () => {
    const missing = "kubectl label namespace drover-system --overwrite pod-security.kubernetes.io/enforce=privileged";
    const said = await upgrade();
    expect(said).toContain(missing);
    expect(said).toContain("kubectl -n drover-system rollout status daemonset/drover-agent");
    expect(said).toContain("get it in place, a few at a time; `kubectl get drollout` shows how far that is");
    expect(await upgrade("runtimeUpdate.mode=Off")).not.toContain("drollout");
    await kubectl.accepted(["label", "namespace", NAMESPACE, "pod-security.kubernetes.io/enforce=privileged"]);
    expect(await upgrade()).not.toContain(missing);
  });
});

describe("uninstalled", () => {
  it("leaves every instance, and comes back", async () => {
    await kubectl.accepted(["apply", "-f", "-"], instance);
    await helm("uninstall", "drover", "--namespace", NAMESPACE);
    expect(await kubectl.accepted(["get", "instance", "shop", "-o", "name"])).toBe("instance.drover.dev/shop");
    expect(await kubectl.accepted(["get", "validatingadmissionpolicies", "-o", "name"])).not.toContain("drover");
    expect(await upgrade()).toContain("STATUS: deployed");
    expect(await kubectl.accepted(["get", "instance", "shop", "-o", "name"])).toBe("instance.drover.dev/shop");
  });
});
