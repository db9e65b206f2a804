/** The generated CRDs against a real API server: what is refused, and that the refusal says what to change. */
import { readFile } from "node:fs/promises";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { parse } from "yaml";
import { type LocalControlPlane, startLocalControlPlane } from "../../hack/control-plane/local.ts";
import { type Kubectl, kubectlFor } from "./kubectl.ts";
import { type Json, mergePatch } from "./merge-patch.ts";

interface Cases {
  base: Json;
  cases: { name: string; change: Json; says: string }[];
  changes: { name: string; change: Json; says: string }[];
  allowed: { name: string; change: Json }[];
}
interface Pending {
  name: string;
  comesWith: string;
}

const here = import.meta.dirname;
const root = path.join(here, "../..");
const load = async <T>(name: string): Promise<T> => parse(await readFile(path.join(here, "bad", `${name}.yaml`), "utf8")) as T;

let plane: LocalControlPlane;
let kubectl: Kubectl;

beforeAll(async () => {
  plane = await startLocalControlPlane();
  kubectl = kubectlFor(plane.kubeconfig);
  await kubectl.accepted(["apply", "-f", path.join(root, "crds/generated")]);
  await kubectl.accepted(["wait", "--for=condition=Established", "--timeout=60s", "crd", "--all"]);
});
afterAll(() => plane?.stop());

const kinds = ["instances", "networks", "storagepools", "migrations", "rollouts"];
const files = await Promise.all(kinds.map((kind) => load<Cases>(kind)));
const pending = await load<Pending[]>("pending");

const create = ["create", "--dry-run=server", "--validate=strict", "-f", "-"];
const change = ["apply", "--dry-run=server", "--validate=strict", "-f", "-"];

describe.each(kinds.map((kind, i) => ({ kind, file: files[i] as Cases })))("$kind", ({ kind, file }) => {
  it("takes what is right", async () => {
    expect(await kubectl.accepted(["apply", "--validate=strict", "-f", "-"], file.base)).toContain("created");
  });

  it.each(file.cases)("refuses $name", async (one) => {
    const object = mergePatch(mergePatch(file.base, { metadata: { name: "bad" } }), one.change);
    expect(await kubectl.refusal(create, object)).toContain(one.says);
  });

  it.each(file.changes)("refuses to change: $name", async (one) => {
    const object = mergePatch(file.base, one.change);
    expect(await kubectl.refusal(change, object)).toContain(one.says);
    expect(await kubectl.refusal(["replace", "--dry-run=server", "-f", "-"], object)).toContain(one.says);
  });

  it.each(file.allowed)("takes the change: $name", async (one) => {
    expect(await kubectl.accepted(change, mergePatch(file.base, one.change))).toContain("configured");
  });

  it("is listed with its category, and explained", async () => {
    expect(await kubectl.accepted(["get", "drover", "-A"])).toContain(`${kind.slice(0, -1)}.drover.dev/`);
    expect(await kubectl.accepted(["explain", `${kind}.spec`])).not.toMatch(/no description|<empty>/);
    expect(await kubectl.accepted(["explain", `${kind}.status`])).not.toMatch(/no description|<empty>/);
  });
});

describe("instances, beyond one object", () => {
  it("says that two nics have one name under server-side apply too", async () => {
    const nics = [
      { name: "front", network: "a" },
      { name: "front", network: "b" },
    ];
    const object = mergePatch((files[0] as Cases).base, { metadata: { name: "bad" }, spec: { nics } });
    expect(await kubectl.refusal(["apply", "--server-side", "-f", "-"], object)).toContain("two nics have the name front");
  });

  it("are found by the node they run on", async () => {
    const patch = JSON.stringify({ status: { nodeName: "n1", phase: "Running" } });
    await kubectl.accepted(["patch", "instance", "shop", "--subresource=status", "--type=merge", "-p", patch]);
    const on = (node: string) => kubectl.accepted(["get", "inst", "--field-selector", `status.nodeName=${node}`, "-o", "name"]);
    expect([await on("n1"), await on("n2")]).toEqual(["instance.drover.dev/shop", ""]);
  });

  it("keep their status when the spec is written", async () => {
    const patch = JSON.stringify({ spec: { power: "Stopped" }, status: { phase: "Error" } });
    await kubectl.accepted(["patch", "instance", "shop", "--type=merge", "-p", patch]);
    const fields = "jsonpath={.spec.power} {.status.phase} {.metadata.generation}";
    expect(await kubectl.accepted(["get", "instance", "shop", "-o", fields])).toBe("Stopped Running 2");
  });
});

describe("migrations, beyond one object", () => {
  const set = (value: Json) => kubectl.accepted(["patch", "dmig", "shop-1", "--type=merge", "-p", JSON.stringify(value)]);
  const refused = (value: Json) => kubectl.refusal(["patch", "dmig", "shop-1", "--type=merge", "-p", JSON.stringify(value)]);

  it("are found by their instance, and by either node", async () => {
    const status = JSON.stringify({ status: { sourceNode: "n1", targetNode: "n2" } });
    await kubectl.accepted(["patch", "dmig", "shop-1", "--subresource=status", "--type=merge", "-p", status]);
    const by = (selector: string) => kubectl.accepted(["get", "dmig", "--field-selector", selector, "-o", "name"]);
    const found = await Promise.all(["spec.instance=shop", "status.sourceNode=n1", "status.targetNode=n2"].map(by));
    expect(found).toEqual(Array.from({ length: 3 }, () => "migration.drover.dev/shop-1"));
    expect(await by("status.targetNode=n1")).toBe("");
  });

  it("once cancelled stay so, and a decision is not taken back", async () => {
    await set({ spec: { cancel: true, keep: "Source" } });
    for (const cancel of [false, null])
      expect(await refused({ spec: { cancel } })).toContain("a cancelled migration cannot be taken up again; make a new one");
    for (const keep of ["Target", null])
      expect(await refused({ spec: { keep } })).toContain("the decision which copy lives cannot be changed");
  });

  it("have a record of who owns the guest that only whoever knows it can change", async () => {
    const patch = (from: string, to: string) => [
      { op: "test", path: "/status/handover", value: { attempt: 1, state: from } },
      { op: "replace", path: "/status/handover", value: { attempt: 1, state: to } },
    ];
    const record = ["patch", "dmig", "shop-1", "--subresource=status", "--type=json", "-p"];
    const first = [{ op: "add", path: "/status/handover", value: { attempt: 1, state: "Copying" } }];
    await kubectl.accepted([...record, JSON.stringify(first)]);
    await kubectl.accepted([...record, JSON.stringify(patch("Copying", "Source"))]);
    expect(await kubectl.refusal([...record, JSON.stringify(patch("Copying", "Handover"))])).toContain("is invalid");
    expect(await kubectl.accepted(["get", "dmig", "shop-1", "-o", "jsonpath={.status.handover.state}"])).toBe("Source");
  });
});

describe("updates in place", () => {
  const update = {
    apiVersion: "drover.dev/v1alpha1",
    kind: "Migration",
    metadata: { name: "shop-update" },
    spec: {
      instance: "shop",
      mode: "InPlace",
      runtime: "r2",
      policy: { maxPause: "100ms", timeout: "1m" },
      priority: "Rebalance",
    },
  };
  it("are taken, and the runtime stays", async () => {
    expect(await kubectl.accepted(["apply", "--validate=strict", "-f", "-"], update)).toContain("created");
    const args = ["patch", "dmig", "shop-update", "--type=merge", "-p"];
    for (const runtime of ["r3", null])
      expect(await kubectl.refusal([...args, JSON.stringify({ spec: { runtime } })])).toContain("a migration cannot be changed");
    expect(await kubectl.accepted([...args, JSON.stringify({ spec: { cancel: true } })])).toContain("patched");
  });
});

describe("columns", () => {
  it.each([
    ["inst", ["TYPE", "PHASE", "NODE", "IP", "AGE"], ["CPU", "MEMORY", "POOL", "IMAGE", "QEMU", "RUNTIME", "REASON"]],
    ["dnet", ["IPV4", "IPV6", "INSTANCES", "READY", "AGE"], ["DOMAIN", "MTU"]],
    ["dpool", ["DRIVER", "SIZE", "USED", "NODES", "READY", "AGE"], []],
    ["dmig", ["INSTANCE", "FROM", "TO", "PHASE", "PROGRESS", "PAUSE", "AGE"], ["MEMORY", "DISK", "RATE", "MODE", "REASON"]],
    ["dhost", ["ACCELERATOR", "QEMU", "RUNTIME", "POOLS", "INSTANCES", "UPDATED", "READY", "AGE"], []],
    ["drollout", ["PHASE", "PROGRESS", "FAILED", "REASON", "AGE"], ["MESSAGE"]],
  ])("%s", async (short, columns, wide) => {
    const host = { apiVersion: "drover.dev/v1alpha1", kind: "Host", metadata: { name: "n1" } };
    await kubectl.accepted(["apply", "-f", "-"], host);
    const header = async (...args: string[]) => (await kubectl.accepted(["get", short, ...args])).split("\n")[0]?.split(/\s+/);
    expect(await header()).toEqual(["NAME", ...columns]);
    expect(await header("-o", "wide")).toEqual(["NAME", ...columns, ...wide]);
  });
});

describe("samples", () => {
  it("apply, strictly", async () => {
    const samples = path.join(root, "manifests/samples");
    const said = await kubectl.accepted(["apply", "--dry-run=server", "--validate=strict", "-R", "-f", samples]);
    expect(said).toContain("instance.drover.dev/web created");
  });
});

describe("pending", () => {
  for (const { name, comesWith } of pending) it.todo(`${name} (comes with ${comesWith})`);
});
