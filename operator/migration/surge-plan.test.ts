import { describe, expect, it } from "vitest";
import type { Pod, ResourceQuota } from "../../kube/index.ts";
import { formatQuantity, parseQuantity } from "./quantity.ts";
import { concerns, planSurge, usageOf, type SurgeFacts } from "./surge-plan.ts";

const pod = (requests: Record<string, string>, limits: Record<string, string>): Pick<Pod, "spec"> => ({
  spec: { containers: [{ name: "holder", resources: { requests, limits } }] },
});
const claim = pod({ cpu: "250m", memory: "330Mi" }, { memory: "330Mi" });
const quota = (hard: Record<string, string>, used: Record<string, string>, enforced = hard): ResourceQuota => ({
  apiVersion: "v1",
  kind: "ResourceQuota",
  metadata: { name: "team", uid: "q" },
  spec: { hard },
  status: { hard: enforced, used },
});
const full = quota({ "requests.cpu": "1", memory: "660Mi", pods: "2" }, { "requests.cpu": "1", memory: "660Mi", pods: "2" });
const facts = (more: Partial<SurgeFacts>): SurgeFacts => ({
  quotas: [full],
  usage: usageOf(claim),
  others: [],
  priorityClass: "drover-claim",
  beyond: false,
  ...more,
});
const hard = (more: Partial<SurgeFacts>): unknown => {
  const plan = planSurge(facts(more));
  return "reason" in plan ? plan.reason : plan.map((one) => one.hard);
};

describe.each([
  ["0", "0"],
  ["250m", "250m"],
  ["1.5", "1500m"],
  ["1500m", "1500m"],
  ["2000m", "2"],
  ["1Ki", "1024"],
  ["1.5Gi", "1610612736"],
  ["12e3", "12000"],
  ["12E", "12000000000000000000"],
  ["1e-3", "1m"],
  ["100n", "100n"],
  ["0.0000000001", "1n"],
])("%s", (text, same) => {
  it(`is ${same}`, () => expect(formatQuantity(parseQuantity(text))).toBe(same));
});
it.each(["", "x", "-1", "1Zi", "1 Gi"])("'%s' is no quantity", (text) => expect(() => parseQuantity(text)).toThrow(RangeError));

describe("what a quota counts for a claim", () => {
  it("is what it asks for, by all of its names", () => {
    expect(Object.fromEntries([...usageOf(claim)].map(([name, amount]) => [name, formatQuantity(amount)]))).toEqual({
      pods: "1",
      "count/pods": "1",
      cpu: "250m",
      "requests.cpu": "250m",
      memory: String(330 * 2 ** 20),
      "requests.memory": String(330 * 2 ** 20),
      "limits.memory": String(330 * 2 ** 20),
    });
  });
  it("includes a pool's room by its one name, and what a LimitRange added to the present claim", () => {
    const like = pod({ cpu: "9", memory: "1", "drover.dev/pool.old": "3" }, { cpu: "2" });
    const usage = usageOf(pod({ cpu: "1", "drover.dev/pool.fast": "8" }, {}), like);
    expect(usage.get("requests.drover.dev/pool.fast")).toBe(parseQuantity("8"));
    expect(usage.has("drover.dev/pool.fast")).toBe(false);
    expect(usage.has("requests.drover.dev/pool.old")).toBe(false);
    expect(usage.get("limits.cpu")).toBe(parseQuantity("2"));
    expect(usage.get("cpu")).toBe(parseQuantity("1"));
  });
});

describe("scopes", () => {
  const scoped = (spec: ResourceQuota["spec"]) => concerns({ spec }, "drover-claim");
  const classes = (operator: string, ...values: string[]) =>
    scoped({ scopeSelector: { matchExpressions: [{ scopeName: "PriorityClass", operator, values }] } });
  it.each([
    ["none", scoped({}), true],
    ["NotBestEffort", scoped({ scopes: ["NotBestEffort"] }), true],
    ["BestEffort", scoped({ scopes: ["BestEffort"] }), false],
    ["Terminating", scoped({ scopes: ["Terminating"] }), false],
    ["both", scoped({ scopes: ["NotBestEffort", "Terminating"] }), false],
    ["its class", classes("In", "drover-claim"), true],
    ["another class", classes("In", "high"), false],
    ["not its class", classes("NotIn", "drover-claim"), false],
    ["any class", classes("Exists"), true],
    ["no class", classes("DoesNotExist"), false],
  ])("%s", (_, got, expected) => expect(got).toBe(expected));
});

describe("a quota", () => {
  it("that is full is raised by what the claim asks for", () => {
    expect(hard({})).toEqual([{ "requests.cpu": "1250m", memory: String(990 * 2 ** 20), pods: "3" }]);
  });
  it("with room is left alone, each resource by itself", () => {
    const some = quota({ cpu: "2", pods: "2" }, { cpu: "1", pods: "2" });
    expect(hard({ quotas: [some] })).toEqual([{ pods: "3" }]);
    expect(hard({ quotas: [quota({ pods: "3" }, { pods: "2" })] })).toEqual([]);
  });
  it("gives room beside another move", () => {
    const busy = quota({ pods: "2" }, { pods: "3" });
    expect(hard({ quotas: [busy], others: [usageOf(claim)] })).toEqual([{ pods: "4" }]);
  });
  it("that is used beyond its limit, without any move, gives none but to a drain", () => {
    const over = quota({ pods: "2" }, { pods: "3" });
    expect(hard({ quotas: [over] })).toBe("QuotaExceeded");
    expect(hard({ quotas: [over], beyond: true })).toEqual([{ pods: "4" }]);
  });
  it("that counts something else, is not ours, or is not counted yet is left alone", () => {
    const hidden = { ...full, spec: { ...full.spec, scopes: ["BestEffort"] } };
    const fresh = { ...full, status: {} };
    expect(hard({ quotas: [quota({ services: "1" }, { services: "1" }), hidden, fresh] })).toEqual([]);
  });
  it("that somebody has just lowered is measured by what its owner wants", () => {
    const lowered = quota({ pods: "1" }, { pods: "2" }, { pods: "2" });
    expect(hard({ quotas: [lowered] })).toBe("QuotaExceeded");
  });
});
