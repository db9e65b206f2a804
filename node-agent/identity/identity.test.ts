import { randomBytes } from "node:crypto";
import { beforeAll, describe, expect, it } from "vitest";
import { FakeClock, silentLogger } from "../../kube/index.ts";
import { Authority, type AuthorityFiles } from "../../operator/certificates/authority.ts";
import { withAuthority } from "../../operator/certificates/fixtures.ts";
import { readRequest } from "../../operator/certificates/request.ts";
import { readAnswer, renewAt, type IdentityMaterial } from "./certificate.ts";
import { RenewedIdentity } from "./identity.ts";
import { makeRequest, requestName } from "./request.ts";

const DAY = 24 * 3600_000;
let files: AuthorityFiles;
let asked: { key: string; request: string };

beforeAll(async () => {
  files = await withAuthority((one) => one);
  asked = await makeRequest("n1", "agent");
});

const issue = (now: number, validMs: number): IdentityMaterial => {
  const { publicKey } = readRequest(asked.request);
  const chain = new Authority(files).issue({ node: "n1", role: "agent", publicKey, validMs, now, serial: randomBytes(16) });
  return readAnswer(chain, asked.key, { node: "n1", role: "agent" });
};

/** Answers as long as `up` says so; each answer is one of `days`. */
const start = (days = 9, before?: IdentityMaterial, up = true) => {
  const clock = new FakeClock(Date.UTC(2026, 10, 23));
  const stop = new AbortController();
  const world = { up, tries: 0, told: 0 };
  const identity = new RenewedIdentity({
    ask: () => {
      world.tries += 1;
      return world.up ? Promise.resolve(issue(clock.now(), days * DAY)) : Promise.reject(new Error("no operator"));
    },
    clock,
    log: silentLogger,
    random: () => 0,
    before,
  });
  identity.onChange(() => void world.told++);
  const running = identity.run(stop.signal);
  const end = async (): Promise<void> => {
    stop.abort();
    await running;
  };
  return { clock, world, identity, end };
};

describe("RenewedIdentity", () => {
  it("has a certificate soon, and a new one after two thirds of its life", async () => {
    const { clock, world, identity, end } = start();
    expect(identity.current()).toBeUndefined();
    const ready = identity.ready(AbortSignal.timeout(5_000));
    await clock.advance(0);
    const first = await ready;
    expect(identity.current()).toBe(first);
    await clock.advance(6 * DAY - 3600_000);
    expect(world).toMatchObject({ tries: 1, told: 1 });
    await clock.advance(2 * 3600_000);
    expect(world).toMatchObject({ tries: 2, told: 2 });
    expect(identity.current()?.cert).not.toBe(first.cert);
    await end();
  });

  it("keeps what it has while nobody signs, tries on, and has none once it has expired", async () => {
    const { clock, world, identity, end } = start();
    await clock.advance(0);
    world.up = false;
    await clock.advance(8.9 * DAY);
    expect(identity.current()).toBeDefined();
    // Every five minutes at most, for three days.
    expect(world.tries).toBeGreaterThan(500);
    expect(world.tries).toBeLessThan(2_500);
    await clock.advance(0.2 * DAY);
    expect(identity.current()).toBeUndefined();
    world.up = true;
    await clock.advance(5 * 60_000);
    expect(identity.current()).toBeDefined();
    await end();
  });

  it("goes on with one of an earlier life until that is due", async () => {
    const before = issue(Date.UTC(2026, 10, 22), 9 * DAY);
    const { clock, world, identity, end } = start(9, before);
    expect(identity.current()).toBe(before);
    await clock.advance(4.9 * DAY);
    expect(world.tries).toBe(0);
    await clock.advance(0.2 * DAY);
    expect(world.tries).toBe(1);
    await end();
  });

  it("has nothing of an expired one", () => {
    const { identity, end } = start(9, issue(Date.UTC(2026, 9, 1), 9 * DAY));
    expect(identity.current()).toBeUndefined();
    return end();
  });

  it("stops waiting when it is told to", async () => {
    const { identity, end } = start(9, undefined, false);
    await expect(identity.ready(AbortSignal.abort(new Error("ended")))).rejects.toThrow("ended");
    const stop = new AbortController();
    const ready = identity.ready(stop.signal);
    stop.abort(new Error("ended later"));
    await expect(ready).rejects.toThrow("ended later");
    await end();
  });
});

it.each([
  [0, 6],
  [1, 5.55],
])("renewAt with chance %d: day %d of 9", (random, day) => {
  expect(renewAt({ from: 0, to: 9 * DAY }, random)).toBeCloseTo(day * DAY, -3);
});

describe("makeRequest", () => {
  it("makes a new key each time, and a name that follows from the request", async () => {
    const other = await makeRequest("n1", "agent");
    expect(other.key).not.toBe(asked.key);
    expect(requestName("agent", other.request)).not.toBe(requestName("agent", asked.request));
    expect(requestName("agent", asked.request)).toMatch(/^drover-agent-[0-9a-f]{20}$/);
  });

  it("takes no name that could say more than a name", async () => {
    await expect(makeRequest("n1\nO = system:masters", "agent")).rejects.toThrow("is no name of a node");
  });

  it("leaves out a common name that is too long for one", async () => {
    const node = `${"a".repeat(60)}.${"b".repeat(60)}.example`;
    const { request, key } = await makeRequest(node, "chassis");
    const read = readRequest(request);
    expect(read).toMatchObject({ commonName: "", dnsNames: [`${node}.chassis.drover.dev`] });
    const grant = { node, role: "chassis" as const, publicKey: read.publicKey, validMs: DAY, now: 0, serial: randomBytes(16) };
    expect(readAnswer(new Authority(files).issue(grant), key, { node, role: "chassis" }).cert).toContain("CERTIFICATE");
  });
});
