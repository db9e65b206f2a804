import { describe, expect, it } from "vitest";
import { FakeServer, settle } from "./fakes.ts";
import { routeUpdate, startMonitor } from "./monitor.ts";
import { Replica } from "./replica.ts";
import { readSchema } from "./schema.ts";
import { Session } from "./session.ts";
import type { RowChange } from "./updates.ts";

const schema = readSchema({
  tables: { T: { columns: { name: { type: "string" }, old: { type: "string" } } }, Other: { columns: {} } },
});
const unknown = { result: null, error: "unknown method" };

/** A replica on a session with a played server that knows these methods. */
const start = (replica: Replica, known: Record<string, unknown>) => {
  const server = new FakeServer();
  const replicas = new Map([["m", replica]]);
  const session = new Session(server.stream, {
    inactivityProbeMs: 0,
    onNotification: (method, params) => routeUpdate(method, params, replicas),
  });
  let answered = 0;
  const answer = async (): Promise<void> => {
    for (;;) {
      await settle();
      const request = server.received[answered];
      if (!request) return;
      answered += 1;
      const result = known[String(request["method"])];
      server.send({ id: request["id"], ...(result === undefined ? unknown : { result, error: null }) });
    }
  };
  return {
    server,
    session,
    done: Promise.all([startMonitor({ session, database: "D", schema, replica, id: "m", timeoutMs: 1000 }), answer()]),
  };
};

const make = (where = false): { replica: Replica; changes: RowChange[] } => {
  const replica = new Replica(
    { T: { columns: ["name", "new"], ...(where ? { where: [["name", "!=", ""]] } : {}) }, Missing: {} },
    (error) => {
      throw error;
    },
  );
  const changes: RowChange[] = [];
  replica.onChange((some) => changes.push(...some));
  return { replica, changes };
};

const snapshot2 = { T: { 1: { initial: { name: "a" } } } };

describe.each([
  ["monitor_cond_since", [false, "tx-1", snapshot2]],
  ["monitor_cond", snapshot2],
  ["monitor", { T: { 1: { new: { name: "a" } } } }],
])("a server whose best is %s", (form, result) => {
  it("gives the rows", async () => {
    const { replica, changes } = make();
    const { server, done } = start(replica, { [form]: result });
    expect((await done)[0]).toBe(form);
    expect(replica.synced).toBe(true);
    expect(changes).toEqual([{ table: "T", uuid: "1", now: { name: "a" } }]);
    // Neither a column nor a table that the server does not know is asked for.
    const tables = (server.received.at(-1)?.["params"] as unknown[] | undefined)?.[2];
    expect(tables).toEqual({ T: form === "monitor" ? { columns: ["name"] } : [{ columns: ["name"] }] });
  });
});

describe("startMonitor", () => {
  it("resumes where it was, and starts over when the server cannot", async () => {
    const { replica, changes } = make();
    await start(replica, { monitor_cond_since: [false, "tx-1", snapshot2] }).done;
    replica.markLost();
    expect(replica.synced).toBe(false);
    const again = start(replica, { monitor_cond_since: [true, "tx-2", { T: { 2: { insert: { name: "b" } } } }] });
    await again.done;
    expect(again.server.received[0]).toMatchObject({ params: ["D", "m", {}, "tx-1"] });
    expect([...replica.rows("T").keys()]).toEqual(["1", "2"]);
    replica.markLost();
    changes.length = 0;
    await start(replica, { monitor_cond_since: [false, "tx-3", snapshot2] }).done;
    expect(changes).toEqual([{ table: "T", uuid: "2", old: { name: "b" } }]);
    expect(replica.lastTransaction).toBe("tx-3");
  });

  it("keeps the last transaction of each update", async () => {
    const { replica } = make();
    const { server, done } = start(replica, { monitor_cond_since: [false, "tx-1", {}] });
    await done;
    server.send({ method: "update3", params: ["m", "tx-9", { T: { 3: { insert: { name: "c" } } } }], id: null });
    await settle();
    expect(replica.lastTransaction).toBe("tx-9");
    expect(replica.rows("T").get("3")).toEqual({ name: "c" });
  });

  it("closes the session when an update does not fit", async () => {
    const { replica } = make();
    const { server, session, done } = start(replica, { monitor_cond_since: [false, "tx-1", {}] });
    await done;
    server.send({ method: "update3", params: ["m", "tx-2", { T: { 7: { modify: { name: "x" } } } }], id: null });
    expect((await session.closed).message).toMatch(/never sent/);
  });

  it("does not pretend to conditions that the server does not know", async () => {
    await expect(start(make(true).replica, { monitor: {} }).done).rejects.toThrow(/no conditional monitor/);
  });

  it("gives back the server's refusal", async () => {
    const { replica } = make();
    const server = new FakeServer();
    const session = new Session(server.stream, { inactivityProbeMs: 0 });
    const refused = startMonitor({ session, database: "D", schema, replica, id: "n", timeoutMs: 1000 });
    server.send({ id: 1, result: null, error: { error: "syntax error", details: "no such column" } });
    await expect(refused).rejects.toThrow(/no such column/);
    expect(replica.synced).toBe(false);
  });
});
