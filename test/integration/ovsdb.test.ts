/** The OVSDB client against real ovsdb-servers: unix, tcp, ssl; killed, frozen, emptied, clustered. */
import { rm } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import {
  asMap,
  asSet,
  asString,
  byUuid,
  DisconnectedError,
  mapOf,
  namedUuid,
  OvsdbClient,
  type OvsdbClientOptions,
  OvsdbError,
  ops,
  parseRemote,
  type Replica,
  type RowChange,
  uuid,
} from "../../ovsdb/index.ts";
import { freePort, makeCertificates, makeDirectory, needPrograms, OvsdbServer, readCertificates } from "./ovsdb-server.ts";

const SCHEMA = "/usr/share/ovn/ovn-nb.ovsschema";
const DATABASE = "OVN_Northbound";
const quiet = {
  info: () => undefined,
  warn: () => undefined,
  error: (fields: object, message: string) => console.error(message, fields),
};

let directory = "";
let stop = new AbortController();

beforeAll(async () => {
  await needPrograms("ovsdb-server", "ovsdb-tool", "ovn-nbctl");
  directory = await makeDirectory();
  await makeCertificates(directory, "server", "client");
});
afterAll(async () => rm(directory, { recursive: true, force: true }));
beforeEach(() => {
  stop = new AbortController();
});
afterEach(() => stop.abort());

const connect = async (remotes: string[], opts: Partial<OvsdbClientOptions> = {}): Promise<OvsdbClient> => {
  const client = new OvsdbClient({ remotes: remotes.map(parseRemote), database: DATABASE, log: quiet, ...opts });
  client.start(stop.signal);
  await client.connectedOnce;
  return client;
};

/** Resolves when the replica satisfies the test, now or after a change. */
const until = (replica: Replica, test: () => boolean, what: string): Promise<void> =>
  new Promise((resolve, reject) => {
    const deadline = setTimeout(() => reject(new Error(`not within 20 s: ${what}`)), 20_000);
    const check = (): void => {
      if (!test()) return;
      clearTimeout(deadline);
      for (const off of offs) off();
      resolve();
    };
    const offs = [replica.onChange(check), replica.onSync(check)];
    check();
  });

const switchNames = (replica: Replica): string[] =>
  [...replica.rows("Logical_Switch").values()].map((row) => asString(row["name"])).sort();

describe("one server, by unix, tcp and ssl", () => {
  let server: OvsdbServer;
  let remotes: Record<string, string>;

  beforeAll(async () => {
    const [tcp, ssl] = [await freePort(), await freePort()];
    server = new OvsdbServer(directory, "nb", [
      `--remote=ptcp:${tcp}:127.0.0.1`,
      `--remote=pssl:${ssl}:127.0.0.1`,
      `--private-key=${join(directory, "server.key")}`,
      `--certificate=${join(directory, "server.crt")}`,
      `--ca-cert=${join(directory, "ca.crt")}`,
    ]);
    await server.create(SCHEMA);
    await server.start();
    remotes = { unix: `unix:${server.socket}`, tcp: `tcp:127.0.0.1:${tcp}`, ssl: `ssl:127.0.0.1:${ssl}` };
  });
  afterAll(async () => server.stop());
  const remote = (kind: string): string => remotes[kind] ?? "";

  it.each(["unix", "tcp", "ssl"])("writes and watches over %s", async (kind) => {
    const client = await connect([remote(kind)], { tls: () => readCertificates(directory, "client") });
    const replica = client.monitor({ Logical_Switch: { columns: ["name", "ports", "external_ids"] }, Logical_Switch_Port: {} });
    await replica.whenSynced(AbortSignal.timeout(5000));
    const before = switchNames(replica);
    const name = `sw-${kind} – Zürich 🐑`;
    const [inserted] = await client.transact([
      ops.insert("Logical_Switch", { name, ports: [namedUuid("p")], external_ids: mapOf({ a: "1" }) }, "s"),
      ops.insert("Logical_Switch_Port", { name: `port-${kind}`, addresses: ["dynamic", "unknown"] }, "p"),
    ]);
    // What a transaction changed is in the replica when it resolves: no wait here.
    const id = inserted?.uuid ?? "";
    const row = replica.rows("Logical_Switch").get(id);
    expect(row?.["name"]).toBe(name);
    expect(asSet(row?.["ports"])).toHaveLength(1);
    const port = replica.rows("Logical_Switch_Port").get(asSet(row?.["ports"])[0] ?? "");
    expect(asSet(port?.["addresses"]).sort()).toEqual(["dynamic", "unknown"]);

    await client.transact([
      ops.mutate("Logical_Switch", byUuid(id), [
        ["external_ids", "insert", mapOf({ b: "2" })],
        ["external_ids", "delete", ["a"]],
      ]),
      ops.mutate("Logical_Switch_Port", [["name", "==", `port-${kind}`]], [["addresses", "delete", ["dynamic"]]]),
    ]);
    expect(asMap(replica.rows("Logical_Switch").get(id)?.["external_ids"])).toEqual(new Map([["b", "2"]]));
    expect(asSet(replica.rows("Logical_Switch_Port").get(asSet(row?.["ports"])[0] ?? "")?.["addresses"])).toEqual(["unknown"]);

    await client.transact([ops.delete("Logical_Switch", byUuid(id))]);
    expect(switchNames(replica)).toEqual(before);
    expect(client.remote).toBe(remote(kind));
  });

  it("is refused without a certificate of the CA, and says so", async () => {
    const other = await makeDirectory();
    await makeCertificates(other, "stranger");
    const stranger = await readCertificates(other, "stranger");
    const { ca } = await readCertificates(directory, "client");
    const attempt = (tls: typeof stranger): Promise<string> => {
      const told = Promise.withResolvers<string>();
      const log = { ...quiet, warn: (fields: object) => told.resolve(String((fields as { error?: string }).error)) };
      const client = new OvsdbClient({ remotes: [parseRemote(remote("ssl"))], database: DATABASE, log, tls, timeoutMs: 3000 });
      client.start(stop.signal);
      return told.promise;
    };
    expect(await attempt(stranger)).toMatch(/self.signed|unable to verify|issuer|certificate signature/i);
    expect(await attempt({ ...stranger, ca })).toMatch(/alert|closed|ECONNRESET|EPIPE|broke/i);
    await rm(other, { recursive: true, force: true });
  });

  it("tells which operation was refused, and does none of them", async () => {
    const client = await connect([remote("unix")]);
    const replica = client.monitor({ Logical_Switch: {} });
    await replica.whenSynced();
    const before = switchNames(replica);
    const refused = client.transact([
      ops.insert("Logical_Switch", { name: "never" }),
      ops.update("Logical_Switch", [], { nonsense: 1 }),
    ]);
    await expect(refused).rejects.toThrow(OvsdbError);
    await expect(refused).rejects.toThrow(/operation 2 of 2 \(update on Logical_Switch\).*nonsense/);
    expect(switchNames(replica)).toEqual(before);
  });

  it("a wait that does not hold fails the transaction at once; one that will hold is waited for", async () => {
    const client = await connect([remote("unix")]);
    const none = ops.wait("Logical_Switch", [["name", "==", "one"]], "==", [], { columns: ["name"] });
    await client.transact([none, ops.insert("Logical_Switch", { name: "one" })]);
    await expect(client.transact([none, ops.insert("Logical_Switch", { name: "one" })])).rejects.toMatchObject({
      error: "timed out",
      index: 0,
    });
    const there = ops.wait("Logical_Switch", [["name", "==", "two"]], "!=", [], { columns: ["name"], timeoutMs: 5000 });
    const waiting = client.transact([there, ops.insert("Logical_Switch", { name: "three" })]);
    await client.transact([ops.insert("Logical_Switch", { name: "two" })]);
    await waiting;
    await client.transact([ops.delete("Logical_Switch", [])]);
  });

  it("cancels what takes too long, and goes on", async () => {
    const client = await connect([remote("unix")]);
    const never = ops.wait("Logical_Switch", [["name", "==", "never"]], "!=", [], { columns: ["name"], timeoutMs: 60_000 });
    await expect(client.transact([never], { timeoutMs: 200 })).rejects.toMatchObject({ name: "OvsdbTimeoutError" });
    await expect(client.transact([never], { signal: AbortSignal.timeout(100) })).rejects.toMatchObject({ name: "TimeoutError" });
    expect(await client.transact([ops.select("NB_Global", [])])).toHaveLength(1);
  });

  it("copies only rows for which a condition holds", async () => {
    const client = await connect([remote("unix")]);
    const mine = client.monitor({ Logical_Switch: { where: [["external_ids", "includes", mapOf({ owner: "me" })]] } });
    await mine.whenSynced();
    await client.transact([
      ops.insert("Logical_Switch", { name: "mine", external_ids: mapOf({ owner: "me" }) }),
      ops.insert("Logical_Switch", { name: "theirs", external_ids: mapOf({ owner: "them" }) }),
    ]);
    expect(switchNames(mine)).toEqual(["mine"]);
    await client.transact([ops.update("Logical_Switch", [["name", "==", "mine"]], { external_ids: mapOf({}) })]);
    expect(switchNames(mine)).toEqual([]);
    await client.transact([ops.delete("Logical_Switch", [])]);
  });

  it("follows another client's changes of sets, maps and optionals exactly", async () => {
    const [writer, reader] = [await connect([remote("unix")]), await connect([remote("tcp")])];
    const columns = ["name", "addresses", "options", "tag", "enabled", "dhcpv4_options"];
    const replica = reader.monitor({ Logical_Switch_Port: { columns } });
    await replica.whenSynced();
    const [dhcp] = await writer.transact([ops.insert("DHCP_Options", { cidr: "10.0.0.0/24" })]);
    const states = [
      { addresses: [], options: mapOf({}), tag: [], enabled: [], dhcpv4_options: [] },
      { addresses: ["a"], options: mapOf({ x: "1" }), tag: 7, enabled: false, dhcpv4_options: uuid(dhcp?.uuid ?? "") },
      {
        addresses: ["b", "c"],
        options: mapOf({ x: "2", y: "1" }),
        tag: 9,
        enabled: true,
        dhcpv4_options: uuid(dhcp?.uuid ?? ""),
      },
      { addresses: ["c"], options: mapOf({ y: "1" }), tag: [], enabled: true, dhcpv4_options: [] },
      { addresses: [], options: mapOf({}), tag: [], enabled: [], dhcpv4_options: [] },
    ];
    await writer.transact([
      ops.insert("Logical_Switch", { name: "s", ports: [namedUuid("p")] }),
      ops.insert("Logical_Switch_Port", { name: "p" }, "p"),
    ]);
    for (const [serial, state] of states.entries()) {
      await writer.transact([
        ops.update("Logical_Switch_Port", [["name", "==", "p"]], { ...state, external_ids: mapOf({ serial: `${serial}` }) }),
      ]);
      // A fresh snapshot is the truth to compare the followed copy with.
      const fresh = reader.monitor({ Logical_Switch_Port: { columns } });
      await fresh.whenSynced();
      expect([...replica.rows("Logical_Switch_Port").values()]).toEqual([...fresh.rows("Logical_Switch_Port").values()]);
    }
    await writer.transact([ops.delete("Logical_Switch", []), ops.delete("DHCP_Options", [])]);
  });

  it("handles hundreds of rows a second", async () => {
    const client = await connect([remote("unix")]);
    const replica = client.monitor({ Logical_Switch: {}, Logical_Switch_Port: {} });
    await replica.whenSynced();
    const rows = 2000;
    await client.transact([ops.insert("Logical_Switch", { name: "many" })]);
    const where = [["name", "==", "many"]] as const;
    const began = performance.now();
    // One transaction per port, as instances come, fifty on the way at a time.
    const add = async (from: number): Promise<void> => {
      for (let n = from; n < rows; n += 50) {
        await client.transact([
          ops.insert("Logical_Switch_Port", { name: `many-${n}`, addresses: [`52:54:00:00:00:01 10.0.0.${n % 250}`] }, "p"),
          ops.mutate("Logical_Switch", where, [["ports", "insert", [namedUuid("p")]]]),
        ]);
      }
    };
    await Promise.all(Array.from({ length: 50 }, (_, from) => add(from)));
    const perSecond = rows / ((performance.now() - began) / 1000);
    console.log(`${Math.round(perSecond)} rows a second, one transaction each`);
    expect(replica.rows("Logical_Switch_Port").size).toBe(rows);
    expect(perSecond).toBeGreaterThan(200);
    const fresh = performance.now();
    const other = client.monitor({ Logical_Switch_Port: {} });
    await other.whenSynced();
    console.log(`${rows} rows copied in ${Math.round(performance.now() - fresh)} ms`);
    expect(other.rows("Logical_Switch_Port").size).toBe(rows);
    await client.transact([ops.delete("Logical_Switch", [])]);
  });
});

describe("a server that goes and comes", () => {
  let server: OvsdbServer;
  beforeEach(async () => {
    server = new OvsdbServer(directory, "gone");
    await server.create(SCHEMA);
    await server.start();
  });
  afterEach(async () => server.stop("SIGKILL"));

  it("reconnects, and tells exactly what differs", async () => {
    const client = await connect([`unix:${server.socket}`]);
    const replica = client.monitor({ Logical_Switch: { columns: ["name"] } });
    await replica.whenSynced();
    await client.transact(["kept", "removed"].map((name) => ops.insert("Logical_Switch", { name })));
    const states: boolean[] = [];
    client.onState((connected) => states.push(connected));
    await server.stop("SIGKILL");
    await expect(client.transact([ops.select("NB_Global", [])])).rejects.toThrow(DisconnectedError);
    expect(replica.synced).toBe(false);
    expect(switchNames(replica)).toEqual(["kept", "removed"]);
    const changes: RowChange[] = [];
    replica.onChange((some) => changes.push(...some));
    await server.start();
    const other = await connect([`unix:${server.socket}`]);
    await replica.whenSynced();
    await other.transact([
      ops.delete("Logical_Switch", [["name", "==", "removed"]]),
      ops.insert("Logical_Switch", { name: "added" }),
    ]);
    await until(replica, () => switchNames(replica).join() === "added,kept", "what the other client wrote");
    const told = changes.map(({ old, now }) => `${now ? "+" : "-"}${asString((now ?? old)?.["name"])}`);
    expect(new Set(told)).toEqual(new Set(["-removed", "+added"]));
    expect(states.filter(Boolean)).not.toHaveLength(0);
  });

  it("tells that an emptied database lost its rows", async () => {
    const client = await connect([`unix:${server.socket}`]);
    const replica = client.monitor({ Logical_Switch: { columns: ["name"] } });
    await replica.whenSynced();
    await client.transact(["a", "b"].map((name) => ops.insert("Logical_Switch", { name })));
    const gone = new Set<string>();
    replica.onChange((changes) => {
      for (const { old, now } of changes) if (old && !now) gone.add(asString(old["name"]));
    });
    await server.stop();
    await server.create(SCHEMA);
    await server.start();
    await replica.whenSynced(AbortSignal.timeout(20_000));
    expect(gone).toEqual(new Set(["a", "b"]));
    expect(switchNames(replica)).toEqual([]);
  });

  it("a transaction under way when it dies says that it may have been done", async () => {
    const client = await connect([`unix:${server.socket}`]);
    process.kill(server.pid, "SIGSTOP");
    const lost = client.transact([ops.insert("Logical_Switch", { name: "x" })]);
    setImmediate(() => process.kill(server.pid, "SIGKILL"));
    await expect(lost).rejects.toMatchObject({ name: "DisconnectedError", maybeApplied: true });
  });

  it("leaves a server that shows no sign of life", async () => {
    const client = await connect([`unix:${server.socket}`], { inactivityProbeMs: 300, timeoutMs: 1000 });
    const lost = new Promise<Error | undefined>((resolve) => client.onState((connected, why) => !connected && resolve(why)));
    process.kill(server.pid, "SIGSTOP");
    expect((await lost)?.message).toMatch(/no sign of life/);
    const back = new Promise<void>((resolve) => client.onState((connected) => connected && resolve()));
    process.kill(server.pid, "SIGCONT");
    await back;
    expect(client.connected).toBe(true);
  });

  it("stops for good when told", async () => {
    const client = await connect([`unix:${server.socket}`]);
    const replica = client.monitor({ Logical_Switch: {} });
    const lost = new Promise<void>((resolve) => client.onState((connected) => !connected && resolve()));
    stop.abort();
    await lost;
    await expect(replica.whenSynced()).rejects.toThrow(/stopped/);
    expect(client.connected).toBe(false);
  });
});

describe("a cluster of three", () => {
  const members: OvsdbServer[] = [];
  const remotes: string[] = [];
  beforeAll(async () => {
    const raft = await Promise.all([freePort(), freePort(), freePort()]);
    for (const [index, port] of raft.entries()) {
      const member = new OvsdbServer(directory, `raft${index}`);
      if (index === 0) await member.createCluster(SCHEMA, `tcp:127.0.0.1:${port}`);
      else await member.joinCluster(DATABASE, `tcp:127.0.0.1:${port}`, `tcp:127.0.0.1:${raft[0]}`);
      await member.start();
      members.push(member);
      remotes.push(`unix:${member.socket}`);
    }
  });
  afterAll(async () => {
    await Promise.all(members.map((member) => member.stop("SIGKILL")));
  });

  it("finds the leader, and the next one", async () => {
    const client = await connect(remotes, { leaderOnly: true });
    const replica = client.monitor({ Logical_Switch: { columns: ["name"] } });
    await replica.whenSynced();
    await client.transact([ops.insert("Logical_Switch", { name: "before" })]);
    const first = client.remote;
    const leader = members[remotes.indexOf(first ?? "")];
    expect(await leader?.control("cluster/status", DATABASE)).toMatch(/Role: leader/);
    await leader?.stop("SIGKILL");
    await until(replica, () => replica.synced, "a new leader");
    expect(client.remote).not.toBe(first);
    expect(switchNames(replica)).toEqual(["before"]);
    await client.transact([ops.insert("Logical_Switch", { name: "after" })]);
    expect(switchNames(replica)).toEqual(["after", "before"]);
  });
});
