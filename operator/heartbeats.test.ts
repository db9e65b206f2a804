import { beforeEach, describe, expect, it } from "vitest";
import { FakeClock, type Change, type Lease } from "../kube/index.ts";
import { agentLeaseName } from "../crds/names.ts";
import { Heartbeats } from "./heartbeats.ts";

const lease = (node: string, renewTime: string): Change<Lease> => {
  const name = agentLeaseName(node);
  const now: Lease = {
    apiVersion: "coordination.k8s.io/v1",
    kind: "Lease",
    metadata: { name, namespace: "drover-system" },
    spec: { holderIdentity: node, leaseDurationSeconds: 40, renewTime },
  };
  return { key: { namespace: "drover-system", name }, now };
};

let clock: FakeClock;
let tell: (change: Change<Lease>) => void;
let heartbeats: Heartbeats;
let said: string[];

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
  );
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
