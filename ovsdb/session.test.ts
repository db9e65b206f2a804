import { describe, expect, it } from "vitest";
import { FakeClock } from "../kube/clock.ts";
import { DisconnectedError, OvsdbError, OvsdbTimeoutError } from "./errors.ts";
import { FakeServer, settle } from "./fakes.ts";
import { Session, type SessionOptions } from "./session.ts";

const start = (opts: SessionOptions = {}) => {
  const clock = new FakeClock();
  const server = new FakeServer();
  const session = new Session(server.stream, { clock, inactivityProbeMs: 0, ...opts });
  return { clock, server, session };
};

describe("request and reply", () => {
  it("matches replies by id, in whatever order they come", async () => {
    const { server, session } = start();
    const [first, second] = [session.request("a", [1]), session.request("b", [2])];
    expect(server.received).toEqual([
      { method: "a", params: [1], id: 1 },
      { method: "b", params: [2], id: 2 },
    ]);
    server.send({ id: 2, result: "two", error: null }, { id: 1, result: "one", error: null });
    expect(await Promise.all([first, second])).toEqual(["one", "two"]);
  });

  it.each([
    [
      "as an object",
      { error: "unknown database", details: "get_schema request specifies unknown database x" },
      /unknown database \(get_schema/,
    ],
    ["as text", "unknown method", /unknown method/],
  ])("keeps the server's own words, %s", async (_, error, words) => {
    const { server, session } = start();
    const reply = session.request("get_schema", ["x"]);
    server.send({ id: 1, result: null, error });
    await expect(reply).rejects.toThrow(OvsdbError);
    await expect(reply).rejects.toThrow(words);
  });

  it("gives the result before a message behind it in the same read", async () => {
    const order: string[] = [];
    const { server, session } = start({ onNotification: (method) => order.push(method) });
    const reply = session.request("monitor", [], { onResult: () => order.push("result") });
    server.send({ id: 1, result: {}, error: null }, { method: "update", params: [], id: null });
    await reply;
    await settle();
    expect(order).toEqual(["result", "update"]);
  });

  it("cancels at the deadline, and lets a late reply be", async () => {
    const { clock, server, session } = start();
    const reply = session.request("transact", [], { timeoutMs: 500 });
    await Promise.all([expect(reply).rejects.toThrow(OvsdbTimeoutError), clock.advance(500)]);
    expect(server.received.at(-1)).toEqual({ method: "cancel", params: [1], id: null });
    server.send({ id: 1, result: [], error: null });
    await settle();
    expect(session.open).toBe(true);
  });

  it("cancels when the caller's signal aborts", async () => {
    const { server, session } = start();
    const abort = new AbortController();
    const reply = session.request("transact", [], { signal: abort.signal });
    abort.abort(new Error("leadership lost"));
    await expect(reply).rejects.toThrow("leadership lost");
    expect(server.received.at(-1)).toMatchObject({ method: "cancel" });
    await expect(session.request("transact", [], { signal: abort.signal })).rejects.toThrow("leadership lost");
    expect(server.received).toHaveLength(2);
  });
});

describe("the peer's side", () => {
  it("answers echo with what was sent", async () => {
    const { server } = start();
    server.send({ method: "echo", params: ["x"], id: "echo" });
    await settle();
    expect(server.received).toEqual([{ result: ["x"], error: null, id: "echo" }]);
  });
  it("refuses other requests", async () => {
    const { server } = start();
    server.send({ method: "steal", params: [], id: 9 });
    await settle();
    expect(server.received).toEqual([{ result: null, error: "unknown method", id: 9 }]);
  });
});

describe("the end", () => {
  it("rejects what is pending as maybe applied, what comes later as not", async () => {
    const { server, session } = start();
    const reply = session.request("transact", []);
    server.end();
    await expect(reply).rejects.toMatchObject({ name: "DisconnectedError", maybeApplied: true });
    expect((await session.closed).message).toMatch(/closed the connection/);
    await expect(session.request("transact", [])).rejects.toMatchObject({ maybeApplied: false });
    await expect(session.request("transact", [])).rejects.toThrow(DisconnectedError);
  });
  it("ends on what is not JSON", async () => {
    const { server, session } = start();
    server.stream.push(Buffer.from("HTTP/1.1 400 Bad Request"));
    expect((await session.closed).message).toMatch(/made no sense/);
  });
  it("ends, and rejects the request, when its result cannot be taken", async () => {
    const { server, session } = start();
    const reply = session.request("monitor", [], {
      onResult: () => {
        throw new Error("not rows");
      },
    });
    server.send({ id: 1, result: 5, error: null });
    await expect(reply).rejects.toThrow("not rows");
    expect((await session.closed).message).toMatch(/not rows/);
  });
  it("keeps the first reason", async () => {
    const { session } = start();
    session.close(new Error("first"));
    session.close(new Error("second"));
    expect((await session.closed).message).toBe("first");
  });
});

describe("inactivity probe", () => {
  it("asks after silence, and lives on with an answer", async () => {
    const { clock, server, session } = start({ inactivityProbeMs: 1000 });
    await clock.advance(1000);
    expect(server.received).toEqual([{ method: "echo", params: [], id: 1 }]);
    server.send({ id: 1, result: [], error: null });
    await clock.advance(900);
    expect(session.open).toBe(true);
    expect(server.received).toHaveLength(1);
    await clock.advance(200);
    expect(server.received).toHaveLength(2);
  });
  it("does not ask a peer that speaks", async () => {
    const { clock, server } = start({ inactivityProbeMs: 1000 });
    for (let turn = 0; turn < 5; turn += 1) {
      await clock.advance(600);
      server.send({ method: "update", params: [], id: null });
      await settle();
    }
    expect(server.received).toEqual([]);
  });
  it("closes when nothing comes", async () => {
    const { clock, session } = start({ inactivityProbeMs: 1000 });
    await clock.advance(2000);
    expect(session.open).toBe(false);
    expect((await session.closed).message).toMatch(/no sign of life for 2000 ms/);
  });
});
