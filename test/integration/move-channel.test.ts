/** The channel between the agents of a move, over real sockets: who is let in, who is not, and how a dead link is noticed. */
import { randomUUID } from "node:crypto";
import { connect, createServer, type Server, type Socket } from "node:net";
import { connect as connectTls } from "node:tls";
import type { AddressInfo } from "node:net";
import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from "vitest";
import { WebSocket } from "ws";
import { realClock, silentLogger } from "../../kube/index.ts";
import type { IdentityMaterial } from "../../node-agent/identity/certificate.ts";
import { peerClientOptions } from "../../node-agent/identity/peer.ts";
import { callTarget, type SourceLink } from "../../node-agent/migration/channel/client.ts";
import type { TargetMessage } from "../../node-agent/migration/channel/messages.ts";
import { ChannelServer, type TargetLink } from "../../node-agent/migration/channel/server.ts";
import { fixedIdentity, TestAuthority } from "./support/node-certificates.ts";

const uid = randomUUID();
const never = new AbortController().signal;
let authority: TestAuthority;
let stranger: TestAuthority;
let n1: IdentityMaterial;
let n2: IdentityMaterial;
let identity: ReturnType<typeof fixedIdentity>;
let server: ChannelServer;
let port: number;
let taken: TargetLink[] = [];

beforeAll(async () => {
  [authority, stranger] = await Promise.all([TestAuthority.make(), TestAuthority.make()]);
  [n1, n2] = [await authority.issue("n1"), await authority.issue("n2")];
  identity = fixedIdentity(n2);
  server = new ChannelServer({
    address: "127.0.0.1",
    port: 0,
    identity,
    reception: (migration, attempt) =>
      migration === uid && attempt === 2 ? { sourceNode: "n1", take: (link) => void taken.push(link) } : undefined,
    clock: realClock,
    log: silentLogger,
  });
  port = await server.start(never);
});
afterAll(async () => {
  await server?.close();
  await Promise.all([authority?.remove(), stranger?.remove()]);
});
afterEach(() => {
  for (const link of taken) link.close("the test is over");
  taken = [];
});

const call = (
  over: { identity?: IdentityMaterial; attempt?: number; migrationUid?: string; targetNode?: string; port?: number } = {},
): Promise<SourceLink> =>
  callTarget({
    endpoint: `127.0.0.1:${over.port ?? port}`,
    migrationUid: uid,
    attempt: 2,
    targetNode: "n2",
    identity: n1,
    clock: realClock,
    log: silentLogger,
    signal: never,
    ...over,
  });

const refusal = (over: Parameters<typeof call>[0]): Promise<string> =>
  call(over).then(
    () => "let in",
    (error: unknown) => {
      const causes: string[] = [];
      for (let one = error; one instanceof Error; one = one.cause) causes.push(one.message);
      return causes.join(" / ");
    },
  );

const closed = (link: TargetLink | SourceLink): Promise<string> => new Promise((resolve) => link.onClose(resolve));

test("they talk, in order and at once", async () => {
  const link = await call();
  await vi.waitFor(() => expect(taken).toHaveLength(1));
  const heard: TargetMessage[] = [];
  link.onMessage((message) => heard.push(message));
  taken[0]?.onMessage(({ type }) => {
    if (type === "want-offer")
      taken[0]?.send({ type: "offer", address: "10.0.0.2", ramPort: 49_152, streams: 0, postCopy: false });
    if (type === "go") taken[0]?.send({ type: "ran", marks: [] });
  });
  link.send({ type: "want-offer" });
  link.send({ type: "go", attempt: 2, postCopy: false });
  await vi.waitFor(() => expect(heard).toHaveLength(2));
  expect(heard.map(({ type }) => type)).toEqual(["offer", "ran"]);
  const other = taken[0];
  if (other === undefined) throw new Error("nobody was let in");
  const words = closed(other);
  link.close("done");
  expect(await words).toContain("done");
});

test("what is said before anybody listens waits", async () => {
  const link = await call();
  link.send({ type: "want-offer" });
  await vi.waitFor(() => expect(taken).toHaveLength(1));
  await new Promise((resolve) => setTimeout(resolve, 50));
  const heard: string[] = [];
  taken[0]?.onMessage(({ type }) => heard.push(type));
  expect(heard).toEqual(["want-offer"]);
  link.close("done");
});

test("a second connection of the same attempt replaces the first", async () => {
  const first = await call();
  const words = closed(first);
  const second = await call();
  expect(await words).toContain("replaced by a newer connection");
  expect(second.open).toBe(true);
  second.close("done");
});

describe("is not let in:", () => {
  test("another node of the cluster", async () => {
    expect(await refusal({ identity: await authority.issue("n3") })).toContain("refused the connection (403)");
  });
  test("the switch of the right node", async () => {
    const said = await refusal({ identity: await authority.issue("n1", { role: "chassis" }) });
    expect(said).not.toBe("let in");
  });
  test("an expired certificate", async () => {
    expect(await refusal({ identity: await authority.issue("n1", { expired: true }) })).toContain("cannot be reached");
  });
  test("a certificate of somebody else's authority", async () => {
    const forged = { ...(await stranger.issue("n1")), ca: authority.ca };
    expect(await refusal({ identity: forged })).toContain("cannot be reached");
  });
  test("nobody at all without a certificate", async () => {
    const { servername, checkServerIdentity } = peerClientOptions(n1, "n2");
    const bare = {
      host: "127.0.0.1",
      port,
      ca: authority.ca,
      ...(servername === undefined ? {} : { servername }),
      ...(checkServerIdentity === undefined ? {} : { checkServerIdentity }),
    };
    const socket = new WebSocket(`wss://127.0.0.1:${port}/move/${uid}/2`, { createConnection: () => connectTls(bare) });
    const error = await new Promise<Error>((resolve) => socket.on("error", resolve));
    expect(error.message).toMatch(/certificate required|socket hang up|ECONNRESET/i);
  });
  test("another attempt, another move", async () => {
    expect(await refusal({ attempt: 1 })).toContain("(503)");
    expect(await refusal({ migrationUid: randomUUID() })).toContain("(503)");
  });
  test("who is not heard of within seconds", async () => {
    const socket = connect({ host: "127.0.0.1", port }).resume();
    const began = performance.now();
    await new Promise((resolve) => socket.on("close", resolve).on("error", () => undefined));
    expect(performance.now() - began).toBeLessThan(8_000);
  }, 15_000);
});

describe("does not talk to:", () => {
  test("another node's agent at the target's address", async () => {
    expect(await refusal({ targetNode: "n3" })).toContain(
      "the agent of node n3 was expected, but the other end is that of node n2",
    );
  });
  test("one whose authority is a stranger", async () => {
    expect(await refusal({ identity: { ...n1, ca: stranger.ca } })).toContain("cannot be reached");
  });
});

test("a renewed certificate is shown without a restart, and what stands goes on", async () => {
  const before = await call();
  identity.renew(await authority.issue("n3"));
  try {
    expect(await refusal({})).toContain("the other end is that of node n3");
    expect(before.open).toBe(true);
  } finally {
    identity.renew(n2);
  }
  before.close("done");
});

test("words that are too long or not understood end the connection", async () => {
  const raw = (data: string): Promise<number> =>
    new Promise((resolve, reject) => {
      const options = { ...peerClientOptions(n1, "n2"), host: "127.0.0.1", port };
      const socket = new WebSocket(`wss://127.0.0.1:${port}/move/${uid}/2`, { createConnection: () => connectTls(options) });
      socket
        .on("open", () => socket.send(data))
        .on("close", resolve)
        .on("error", reject);
    });
  expect(await raw("{}")).toBe(1008);
  expect(await raw("no json")).toBe(1008);
  expect(await raw(JSON.stringify({ type: "go", more: "x".repeat(20_000) }))).toBe(1009);
});

describe("over a link that is cut", () => {
  /** Passes bytes on until it is told to swallow them. */
  let relay: Server;
  let swallow = false;
  const sockets = new Set<Socket>();
  beforeAll(async () => {
    relay = createServer((near) => {
      const far = connect({ host: "127.0.0.1", port });
      for (const [from, to] of [
        [near, far],
        [far, near],
      ] as const) {
        sockets.add(from);
        from.on("data", (data) => void (swallow || to.write(data))).on("error", () => undefined);
      }
    });
    await new Promise<void>((resolve) => relay.listen(0, "127.0.0.1", resolve));
  });
  afterAll(() => {
    for (const socket of sockets) socket.destroy();
    relay.close();
  });

  test("both ends notice within seconds", async () => {
    const link = await call({ port: (relay.address() as AddressInfo).port });
    await vi.waitFor(() => expect(taken).toHaveLength(1));
    const other = taken[0];
    if (other === undefined) throw new Error("nobody was let in");
    await new Promise((resolve) => setTimeout(resolve, 2_500));
    expect([link.open, other.open]).toEqual([true, true]);
    swallow = true;
    const began = performance.now();
    const said = await Promise.all([closed(link), closed(other)]);
    expect(said).toEqual([expect.stringContaining("silent for"), expect.stringContaining("silent for")]);
    expect(performance.now() - began).toBeLessThan(7_500);
  }, 20_000);
});
