/** Room for the second claim of a move where the tenant's quota is full: a real API server, and Kubernetes' own quota controller. */
import { readFile } from "node:fs/promises";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { startLocalControlPlane, type LocalControlPlane } from "../../hack/control-plane/local.ts";
import {
  ApiError,
  Informer,
  KubeClient,
  realClock,
  resources,
  silentLogger,
  type Pod,
  type ResourceQuota,
} from "../../kube/index.ts";
import { refusedClaim } from "../../operator/migration/refusal.ts";
import { createBeyondQuota, settleQuotas, type SurgeContext } from "../../operator/migration/surge.ts";
import { kubectlFor, type Kubectl } from "./kubectl.ts";
import type { Json } from "./merge-patch.ts";
import { until } from "./operator-kit.ts";

let plane: LocalControlPlane;
let client: KubeClient;
let kubectl: Kubectl;
let quotas: Informer<ResourceQuota>;
let ctx: SurgeContext;
let namespace = "";
let count = 0;
const ended = new AbortController();

beforeAll(async () => {
  plane = await startLocalControlPlane({ controllerManager: {} });
  client = KubeClient.fromKubeconfig(await readFile(plane.kubeconfig, "utf8"), { userAgent: "drover-test" });
  kubectl = kubectlFor(plane.kubeconfig);
  quotas = new Informer(client, resources.resourceQuotas);
  quotas.start(ended.signal);
  await quotas.synced;
  ctx = { client, clock: realClock, log: silentLogger };
});
afterAll(async () => {
  ended.abort();
  await quotas?.stopped();
  await plane?.stop();
});
beforeEach(async () => {
  namespace = `team-${count++}`;
  await kubectl.accepted(["create", "namespace", namespace]);
  await kubectl.accepted(["wait", "-n", namespace, "--for=create", "--timeout=30s", "serviceaccount/default"]);
});

const claim = (name: string, labels: Record<string, string> = {}) => ({
  apiVersion: "v1" as const,
  kind: "Pod" as const,
  metadata: { name, namespace, labels: { "drover.dev/claim": name.split("-")[1] ?? "", ...labels } },
  spec: {
    containers: [
      {
        name: "holder",
        image: "none",
        resources: { requests: { cpu: "250m", memory: "330Mi" }, limits: { memory: "330Mi" } },
      },
    ],
  },
});
const second = (name: string) => claim(name, { "drover.dev/migration": "m" });

const quota = async (hard: Record<string, string>, more: Json = {}): Promise<void> => {
  const object = {
    apiVersion: "v1",
    kind: "ResourceQuota",
    metadata: { name: "team", namespace },
    spec: { hard, ...(more as object) },
  };
  await kubectl.accepted(["create", "-f", "-"], object);
  await seen("the quota is counted", ({ status }) => Object.keys(hard).every((name) => status?.used?.[name] !== undefined));
};
const get = (): ResourceQuota | undefined => quotas.get({ namespace, name: "team" });
const seen = (what: string, ask: (quota: ResourceQuota) => boolean) =>
  until(what, quotas, () => {
    const found = get();
    return found !== undefined && ask(found);
  });
const live = async (): Promise<ResourceQuota> => {
  const found = await client.get(resources.resourceQuotas, { namespace, name: "team" });
  if (found === undefined) throw new Error("the quota is gone");
  return found;
};
const refusedBy = async (making: Promise<Pod>): Promise<string> => {
  try {
    await making;
    return "made";
  } catch (error) {
    return refusedClaim(error, "drover-web-2")?.reason ?? String(error);
  }
};

describe("a quota that is full", () => {
  const full = { pods: "1", "requests.cpu": "250m", "requests.memory": "330Mi", "limits.memory": "330Mi" };
  beforeEach(async () => {
    await quota(full);
    await client.create(resources.pods, claim("drover-web-1"));
  });

  it("lets the second claim in, and nobody else; what its owner wrote stays as it was", async () => {
    const before = await live();
    expect(await refusedBy(client.create(resources.pods, second("drover-web-2")))).toBe("QuotaExceeded");
    const made = await createBeyondQuota(second("drover-web-2"), ctx, { beyond: false });
    expect(made.metadata.name).toBe("drover-web-2");
    const after = await live();
    expect(after.spec).toEqual(before.spec);
    expect(after.status?.hard).toEqual(full);
    expect(after.status?.used).toMatchObject({ pods: "2", "requests.cpu": "500m" });
    expect(await refusedBy(client.create(resources.pods, second("drover-web-3")))).toBe("QuotaExceeded");
  });

  it("counts the instance once again when the first claim is gone", async () => {
    await createBeyondQuota(second("drover-web-2"), ctx, { beyond: false });
    await client.delete(resources.pods, { namespace, name: "drover-web-1" }, { gracePeriodSeconds: 0 });
    const counted = await seen("one is counted", ({ status }) => status?.used?.["pods"] === "1");
    expect(counted).toBe(true);
  });

  it("lets many moves in at the same time, each by what it asks for", async () => {
    const names = Array.from({ length: 6 }, (_, n) => `drover-vm${n}-2`);
    await Promise.all(names.map((name) => createBeyondQuota(second(name), ctx, { beyond: false })));
    const after = await live();
    expect(after.status?.hard).toEqual(full);
    expect(after.status?.used?.["pods"]).toBe("7");
  });

  it("is put back by the next leader when this one is killed in between", async () => {
    let writes = 0;
    const dying = client.with({
      guard: () => {
        writes += 1;
        // The create that is refused, the raise, the create that is made; then nothing any more.
        if (writes > 3) throw new Error("this operator is dead");
      },
    });
    // An API server that has not heard of it yet takes one write more.
    await createBeyondQuota(second("drover-web-2"), { ...ctx, client: dying }, { beyond: false }).catch(() => undefined);
    expect((await live()).status?.hard?.["pods"]).toBe("2");
    await settleQuotas(ctx);
    expect((await live()).status?.hard).toEqual(full);
  });

  it("that somebody writes all the time, so that the API server could not count the pod, is asked again", async () => {
    let writes = 0;
    const busy = client.with({
      guard: () => {
        writes += 1;
        // The first create, and the one after the raise.
        if (writes === 1 || writes === 3)
          throw new ApiError(
            409,
            "Conflict",
            'Operation cannot be fulfilled on resourcequotas "team": the object has been modified',
          );
      },
    });
    const made = await createBeyondQuota(second("drover-web-2"), { ...ctx, client: busy }, { beyond: false });
    expect(made.metadata.name).toBe("drover-web-2");
    expect((await live()).status?.hard).toEqual(full);
  });

  it("may be changed by its owner at the same time", async () => {
    const owner = async (): Promise<void> => {
      for (let n = 0; n < 20; n++) {
        const spec = { hard: { pods: "1", "requests.cpu": `${250 + (n % 2)}m` } };
        await client.patchMerge(resources.resourceQuotas, { namespace, name: "team" }, { spec });
      }
    };
    const names = Array.from({ length: 4 }, (_, n) => `drover-vm${n}-2`);
    const drains = async (): Promise<void> => {
      for (const name of names) await createBeyondQuota(second(name), ctx, { beyond: true });
    };
    await Promise.all([owner(), drains()]);
    const { spec } = await live();
    expect(spec?.hard).toMatchObject({ pods: "1", "requests.cpu": "251m" });
    await settleQuotas(ctx);
    await seen("the limits are the owner's", ({ spec: wanted, status }) => status?.hard?.["pods"] === wanted?.hard?.["pods"]);
    await seen("all of them", ({ spec: wanted, status }) => status?.hard?.["requests.cpu"] === wanted?.hard?.["requests.cpu"]);
  });
});

it("a quota that is used beyond its limit without any move gives room to a drain only", async () => {
  await quota({ pods: "3" });
  for (const name of ["drover-web-1", "other-a", "other-b"]) await client.create(resources.pods, claim(name));
  await client.patchMerge(resources.resourceQuotas, { namespace, name: "team" }, { spec: { hard: { pods: "1" } } });
  await seen("the lower limit is enforced", ({ status }) => status?.hard?.["pods"] === "1");
  expect(await refusedBy(createBeyondQuota(second("drover-web-2"), ctx, { beyond: false }))).toBe("QuotaExceeded");
  const made = await createBeyondQuota(second("drover-web-2"), ctx, { beyond: true });
  expect(made.metadata.name).toBe("drover-web-2");
  expect((await live()).status?.hard).toEqual({ pods: "1" });
});

it("what a LimitRange adds to a claim is counted, too", async () => {
  const limits = [{ type: "Container", default: { cpu: "500m" } }];
  await kubectl.accepted(["create", "-f", "-"], {
    apiVersion: "v1",
    kind: "LimitRange",
    metadata: { name: "defaults", namespace },
    spec: { limits },
  });
  await quota({ "limits.cpu": "500m" });
  await client.create(resources.pods, claim("drover-web-1"));
  const made = await createBeyondQuota(second("drover-web-2"), ctx, { beyond: false });
  expect(made.spec.containers[0]?.resources?.limits?.["cpu"]).toBe("500m");
});

describe("a claim that is refused for another reason", () => {
  const reason = async (draft: ReturnType<typeof claim>): Promise<string> =>
    refusedBy(createBeyondQuota(draft, ctx, { beyond: true }));

  it("by a LimitRange says so", async () => {
    const limits = [{ type: "Container", max: { memory: "100Mi" } }];
    await kubectl.accepted(["create", "-f", "-"], {
      apiVersion: "v1",
      kind: "LimitRange",
      metadata: { name: "small", namespace },
      spec: { limits },
    });
    await expect.poll(() => reason(second(`drover-web-${count++}`)), { timeout: 10_000 }).toBe("LimitRange");
  });

  it("by a PriorityClass that is not there says so", async () => {
    const draft = second("drover-web-2");
    const spec = { ...draft.spec, priorityClassName: "no-such-class" };
    expect(await reason({ ...draft, spec })).toBe("PriorityClassMissing");
  });

  it("by a quota that counts what it does not state says so", async () => {
    await quota({ "limits.cpu": "10" });
    expect(await reason(second("drover-web-2"))).toBe("QuotaUnfit");
  });

  it("by its name is an error of ours", async () => {
    await client.create(resources.pods, second("drover-web-2"));
    await expect(createBeyondQuota(second("drover-web-2"), ctx, { beyond: true })).rejects.toBeInstanceOf(ApiError);
  });
});
