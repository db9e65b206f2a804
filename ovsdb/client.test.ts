/** The client's own decisions (whom to try, when, what to tell), against played servers on real sockets. */
import { mkdtemp, rm } from "node:fs/promises";
import net from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { OvsdbClient, type OvsdbClientOptions } from "./client.ts";
import { ops } from "./operations.ts";
import type { Remote } from "./remote.ts";
import { encodeMessage, JsonSplitter } from "./wire.ts";

type Message = Record<string, unknown>;
type Answer = (method: string, params: unknown[]) => unknown;

let directory = "";
let stop = new AbortController();
const servers: net.Server[] = [];
const sockets = new Set<net.Socket>();

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "drover-client-"));
  stop = new AbortController();
});
afterEach(async () => {
  stop.abort();
  for (const socket of sockets) socket.destroy();
  await Promise.all(servers.splice(0).map((server) => new Promise((resolve) => server.close(resolve))));
  await rm(directory, { recursive: true, force: true });
});

/** Answers as told; undefined is "unknown method", as an ovsdb-server says it. */
const serve = async (name: string, answer: Answer): Promise<Remote> => {
  const path = join(directory, name);
  const server = net.createServer((socket) => {
    sockets.add(socket);
    const splitter = new JsonSplitter();
    socket.on("error", () => socket.destroy());
    socket.on("data", (chunk: Buffer) => {
      for (const message of splitter.push(chunk) as Message[]) {
        if (typeof message["method"] !== "string" || message["id"] === null) continue;
        const result = answer(message["method"], message["params"] as unknown[]);
        const reply = result === undefined ? { result: null, error: "unknown method" } : { result, error: null };
        socket.write(encodeMessage({ id: message["id"], ...reply }));
      }
    });
  });
  servers.push(server);
  await new Promise<void>((resolve) => server.listen(path, resolve));
  return { kind: "unix", path };
};

const databaseRow = (leader: boolean) => ({
  Database: { row: { initial: { name: "D", model: "clustered", connected: true, leader } } },
});
const serverSchema = {
  tables: {
    Database: {
      columns: {
        name: { type: "string" },
        model: { type: "string" },
        connected: { type: "boolean" },
        leader: { type: "boolean" },
      },
    },
  },
};

/** A member of a cluster. */
const member =
  (leader: boolean, log: string[] = []): Answer =>
  (method, params) => {
    log.push(`${method} ${String(params[0])}`);
    if (method === "get_schema") return params[0] === "_Server" ? serverSchema : { tables: {} };
    if (method === "monitor_cond_since") return [false, "0", params[0] === "_Server" ? databaseRow(leader) : {}];
    return method === "transact" ? [{ rows: [] }] : undefined;
  };

const start = (remotes: OvsdbClientOptions["remotes"], opts: Partial<OvsdbClientOptions> = {}) => {
  const warnings: string[] = [];
  const log = {
    info: () => undefined,
    warn: (fields: object) => void warnings.push(String((fields as { error?: string }).error)),
    error: (fields: object, message: string) => {
      throw new Error(message, { cause: fields });
    },
  };
  const client = new OvsdbClient({ remotes, database: "D", log, random: () => 0, timeoutMs: 1000, ...opts });
  client.start(stop.signal);
  return { client, warnings };
};

describe("whom it uses", () => {
  it("goes on to the next when one is not there", async () => {
    const there = await serve("there", member(true));
    const { client, warnings } = start([{ kind: "unix", path: join(directory, "nowhere") }, there]);
    await client.connectedOnce;
    expect(client.remote).toMatch(/there$/);
    expect(warnings).toEqual([expect.stringMatching(/cannot connect to unix:.*nowhere: .*ENOENT/)]);
  });

  it("says why a server cannot be used once, however often it is tried, and without a stack", async () => {
    const nowhere: Remote[] = ["a", "b"].map((name) => ({ kind: "unix", path: join(directory, name) }));
    let rounds = 0;
    const tried = Promise.withResolvers<void>();
    const { client, warnings } = start(() => {
      rounds += 1;
      if (rounds === 4) tried.resolve();
      return nowhere;
    });
    const again = setInterval(() => client.retryNow(), 5);
    await tried.promise;
    clearInterval(again);
    expect(warnings.toSorted()).toEqual([
      expect.stringMatching(/cannot connect to unix:.*\/a: [^\n]*ENOENT[^\n]*$/),
      expect.stringMatching(/cannot connect to unix:.*\/b: [^\n]*ENOENT[^\n]*$/),
    ]);
  });

  it("passes a follower by when the leader is asked for, and stays with one when not", async () => {
    const remotes = [await serve("follower", member(false)), await serve("leader", member(true))];
    const strict = start(remotes, { leaderOnly: true });
    await strict.client.connectedOnce;
    expect(strict.client.remote).toMatch(/leader$/);
    expect(strict.warnings).toEqual(["the server will not do: it is not the leader of its cluster"]);
    const any = start(remotes);
    await any.client.connectedOnce;
    expect(any.client.remote).toMatch(/follower$/);
  });

  it("uses a server from before the _Server database", async () => {
    const old = await serve("old", (method, params) => (params[0] === "_Server" ? undefined : member(true)(method, params)));
    const { client } = start([old], { leaderOnly: true });
    await client.connectedOnce;
    expect(await client.transact([ops.select("T", [])])).toEqual([{ rows: [] }]);
  });

  it("asks again for places, at once when told that there is news", async () => {
    const places: Remote[] = [];
    const { client } = start(() => places, { random: () => 1 });
    await expect(client.transact([ops.comment("x")])).rejects.toThrow(/no address of an OVSDB server for D is known/);
    places.push(await serve("late", member(true)));
    client.retryNow();
    await client.connectedOnce;
    expect(client.connected).toBe(true);
  });
});

describe("what it tells", () => {
  it("comes and goes", async () => {
    const there = await serve("there", member(true));
    const { client } = start([there]);
    const states: string[] = [];
    const back = new Promise<void>((resolve) => {
      client.onState((connected, why) => {
        states.push(connected ? "connected" : `lost: ${why?.message}`);
        if (states.length === 3) resolve();
      });
    });
    await client.connectedOnce;
    for (const socket of sockets) socket.destroy();
    await back;
    expect(states).toEqual(["connected", expect.stringMatching(/^lost: .*closed/), "connected"]);
  });

  it("a refusal is logged once, not at every attempt", async () => {
    const log: string[] = [];
    const follower = await serve("follower", member(false, log));
    const { warnings } = start([follower], { leaderOnly: true, random: () => 0 });
    const tries = (): number => log.filter((line) => line === "get_schema _Server").length;
    await expect.poll(tries, { timeout: 5000 }).toBeGreaterThan(2);
    expect(warnings).toHaveLength(1);
  });

  it("a replica asked for before and after the connection is in step", async () => {
    const there = await serve("there", member(true));
    const { client } = start([there]);
    const early = client.monitor({ T: {} });
    await client.connectedOnce;
    const late = client.monitor({ T: {} });
    await Promise.all([early.whenSynced(), late.whenSynced(AbortSignal.timeout(1000))]);
    expect([early.synced, late.synced]).toEqual([true, true]);
  });

  it("is started once", () => {
    const { client } = start([]);
    expect(() => client.start(stop.signal)).toThrow(/started before/);
  });

  it("who waits for the first connection is told of the stop", async () => {
    const { client } = start([]);
    stop.abort();
    await expect(client.connectedOnce).rejects.toThrow(/stopped/);
  });
});
