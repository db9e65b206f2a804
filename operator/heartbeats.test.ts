import { beforeEach, describe, expect, it } from "vitest";
import { FakeClock, type Change, type Lease } from "../kube/index.ts";
import { agentLeaseName, BOOT_ID } from "../crds/names.ts";
import { Heartbeats, type NodeLife } from "./heartbeats.ts";

const lease = (node: string, renewTime: string, bootId?: string): Change<Lease> => {
  const name = agentLeaseName(node);
  const now: Lease = {
    apiVersion: "coordination.k8s.io/v1",
    kind: "Lease",
    metadata: {
      name,
      namespace: "drover-system",
      ...(bootId === undefined ? {} : { annotations: { [BOOT_ID]: bootId } }),
    },
    spec: { holderIdentity: node, leaseDurationSeconds: 40, renewTime },
  };
  return { key: { namespace: "drover-system", name }, now };
};

let clock: FakeClock;
let tell: (change: Change<Lease>) => void;
let heartbeats: Heartbeats;
let said: string[];
let life: NodeLife | undefined;

beforeEach(() => {
  clock = new FakeClock();
  heartbeats = new Heartbeats(
    {
      onChange: (fn) => {
        tell = fn;
        return () => undefined;
      },
    },
    clock,
    () => life,
  );
  life = undefined;
  said = [];
  heartbeats.onChange((node) => void said.push(`${node} ${heartbeats.silence(node) === undefined ? "answers" : "silent"}`));
});

describe("Heartbeats", () => {
  it("knows nothing of an agent without a Lease", () => {
    expect(heartbeats.silence("n1")).toBeUndefined();
  });

  it("says once when an agent falls silent, and once when it is back", async () => {
    tell(lease("n1", "t1"));
    await clock.advance(39_999);
    expect(said).toEqual([]);
    await clock.advance(1);
    expect(said).toEqual(["n1 silent"]);
    expect(heartbeats.silence("n1")).toEqual({ periodMs: 40_000 });
    expect([...heartbeats.silentNodes()]).toEqual(["n1"]);
    tell(lease("n1", "t2"));
    expect(said).toEqual(["n1 silent", "n1 answers"]);
    expect([...heartbeats.silentNodes()]).toEqual([]);
  });

  it("takes only a renewal for a sign of life", async () => {
    tell(lease("n1", "t1"));
    await clock.advance(30_000);
    tell(lease("n1", "t1"));
    await clock.advance(10_000);
    expect(said).toEqual(["n1 silent"]);
  });

  it("hears agents that renew in time", async () => {
    for (let n = 0; n < 10; n += 1) {
      tell(lease("n1", `t${n}`));
      await clock.advance(10_000);
    }
    expect(said).toEqual([]);
  });

  it("believes a Lease that it sees for the first time, when its renewal is long past", async () => {
    tell(lease("n1", new Date(clock.now() - 71_000).toISOString()));
    tell(lease("n2", new Date(clock.now() - 60_000).toISOString()));
    expect(said).toEqual(["n1 silent"]);
    tell(lease("n1", new Date(clock.now() - 70_500).toISOString()));
    expect(said).toEqual(["n1 silent", "n1 answers"]);
    await clock.advance(39_999);
    expect(said).toHaveLength(2);
  });

  it("forgets a node whose Lease is deleted", async () => {
    tell(lease("n1", "t1"));
    await clock.advance(40_000);
    tell({ key: { name: agentLeaseName("n1") } });
    expect(said).toEqual(["n1 silent", "n1 answers"]);
    expect(clock.pending).toBe(0);
  });

  describe("isBack", () => {
    const at = (second: number) => new Date(second * 1000).toISOString();
    const ready = (second: number, bootId?: string): NodeLife => ({ readySince: at(second), bootId });

    it.each<[string, Change<Lease> | undefined, NodeLife, boolean]>([
      ["no agent was ever heard of", undefined, ready(100), true],
      ["renewed since the node is ready", lease("n1", at(101)), ready(100), true],
      ["renewed in the second that it became ready", lease("n1", at(100.5)), ready(100), true],
      ["renewed before the node was lost", lease("n1", at(40)), ready(100), false],
      ["renewed in this boot", lease("n1", at(101), "b1"), ready(100, "b1"), true],
      ["renewed in an earlier boot, too short ago for the node to be missed", lease("n1", at(101), "b1"), ready(50, "b2"), false],
      ["its agent tells no boot", lease("n1", at(101)), ready(100, "b2"), true],
      ["the node tells nothing", lease("n1", at(101), "b1"), { readySince: undefined, bootId: undefined }, true],
    ])("%s", (_, change, now, expected) => {
      if (change !== undefined) tell(change);
      expect(heartbeats.isBack("n1", now)).toBe(expected);
    });

    it("believes a renewal seen while the node was ready, whatever the node's clock said", () => {
      tell(lease("n1", at(40)));
      life = ready(100);
      expect(heartbeats.isBack("n1", ready(100))).toBe(false);
      tell(lease("n1", at(41)));
      expect(heartbeats.isBack("n1", ready(100))).toBe(true);
      expect(heartbeats.isBack("n1", ready(200))).toBe(false);
    });

    it("tells once of an agent that is heard of in another life of its node", () => {
      tell(lease("n1", at(40), "b1"));
      life = ready(30, "b1");
      tell(lease("n1", at(60), "b1"));
      said.length = 0;
      tell(lease("n1", at(80), "b1"));
      expect(said).toEqual([]);
      life = ready(100, "b1");
      tell(lease("n1", at(101), "b1"));
      life = ready(100, "b2");
      tell(lease("n1", at(121), "b2"));
      tell(lease("n1", at(141), "b2"));
      expect(said).toEqual(["n1 answers", "n1 answers"]);
    });
  });

  it("passes over other Leases", () => {
    tell({ ...lease("n1", "t1"), key: { name: "drover-operator" } });
    expect(clock.pending).toBe(0);
  });

  it("says nothing after it was stopped", async () => {
    tell(lease("n1", "t1"));
    heartbeats.stop();
    await clock.advance(100_000);
    expect(said).toEqual([]);
    expect(clock.pending).toBe(0);
  });
});
