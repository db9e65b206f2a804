/** OVN's southbound database as nodes reach it: what the role keeps a node from, and that ovn-controller can do its work in it. */
import { randomBytes } from "node:crypto";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import { silentLogger } from "../../kube/index.ts";
import { readAnswer, type IdentityMaterial } from "../../node-agent/identity/certificate.ts";
import { makeRequest } from "../../node-agent/identity/request.ts";
import { Authority, type AuthorityFiles } from "../../operator/certificates/authority.ts";
import { withAuthority } from "../../operator/certificates/fixtures.ts";
import { readRequest } from "../../operator/certificates/request.ts";
import { byUuid, mapOf, ops, OvsdbClient, parseRemote, uuid, type Operation } from "../../ovsdb/index.ts";
import { Chassis } from "./chassis.ts";
import { needPrograms } from "./ovsdb-server.ts";
import { OvnCentral } from "./ovn.ts";

const DAY_MS = 24 * 3600_000;
let files: AuthorityFiles;
let ovn: OvnCentral;
let remote: string;
let a: Chassis;
let b: Chassis;
const ended = new AbortController();

const issue = async (node: string, validMs = DAY_MS, by = files): Promise<IdentityMaterial> => {
  const { key, request } = await makeRequest(node, "chassis");
  const { publicKey } = readRequest(request);
  const grant = { node, role: "chassis" as const, publicKey, validMs, now: Date.now(), serial: randomBytes(16) };
  return readAnswer(new Authority(by).issue(grant), key, { node, role: "chassis" });
};

beforeAll(async () => {
  await needPrograms("ovn-controller", "ovs-vswitchd", "ovs-vsctl", "ovs-appctl");
  files = await withAuthority((one) => one);
  ovn = await OvnCentral.start({ authority: files.trusted });
  remote = await ovn.serveNodes();
  const southbound = { remote, caFile: join(ovn.directory, "ca.crt") };
  [a, b] = await Promise.all([
    Chassis.start("a", ovn.directory, southbound, "127.0.0.11", await issue("a")),
    Chassis.start("b", ovn.directory, southbound, "127.0.0.12", await issue("b")),
  ]);
  await Promise.all([a.whenConnected(), b.whenConnected()]);
  await ovn.nbctl("ls-add", "blue");
  await ovn.nbctl("lsp-add", "blue", "vm", "--", "lsp-set-addresses", "vm", "02:00:00:00:00:01 10.0.0.1");
  await ovn.nbctl("lsp-add", "blue", "of-b", "--", "lsp-set-options", "of-b", "requested-chassis=b");
  await b.addPort("of-b", "of-b");
  await b.whenInstalled("of-b");
});
afterAll(async () => {
  ended.abort();
  await Promise.all([a?.stop(), b?.stop()]);
  await ovn?.stop();
});

/** A client of the southbound database with a certificate as nodes have them. */
const clientOf = async (material: IdentityMaterial): Promise<OvsdbClient> => {
  const tls = { ...material, ca: await readFile(join(ovn.directory, "ca.crt"), "utf8") };
  const client = new OvsdbClient({ remotes: [parseRemote(remote)], database: "OVN_Southbound", log: silentLogger, tls });
  client.start(ended.signal);
  return client;
};

const find = async (table: string, column: string, value: string): Promise<string> => {
  const found = await ovn.sbctl("--bare", "--columns=_uuid", "find", table, `${column}=${value}`);
  if (found === "") throw new Error(`no ${table} with ${column}=${value}`);
  return found;
};

/** What became of it: `done`, or the database's word. */
const tried = async (client: OvsdbClient, ...operations: Operation[]): Promise<string> =>
  client.transact(operations).then(
    (results) => (results.every(({ count }) => count === undefined || count > 0) ? "done" : "nothing found"),
    (error: unknown) => (error instanceof Error ? error.message : ""),
  );

describe("a node's certificate", () => {
  let client: OvsdbClient;
  beforeAll(async () => {
    client = await clientOf(await issue("a"));
    await client.connectedOnce;
  });

  it("writes the node's own rows", async () => {
    const own = byUuid(await find("Chassis", "name", "a"));
    expect(await tried(client, ops.mutate("Chassis", own, [["external_ids", "insert", mapOf({ test: "1" })]]))).toBe("done");
    const encap = byUuid(await find("Encap", "chassis_name", "a"));
    expect(await tried(client, ops.update("Encap", encap, { options: mapOf({ csum: "true" }) }))).toBe("done");
  });

  it.each<[string, () => Promise<Operation>]>([
    [
      "change another's Chassis",
      async () =>
        ops.mutate("Chassis", byUuid(await find("Chassis", "name", "b")), [["external_ids", "insert", mapOf({ evil: "1" })]]),
    ],
    ["delete another's Chassis", async () => ops.delete("Chassis", byUuid(await find("Chassis", "name", "b")))],
    [
      "send another's tunnels elsewhere",
      async () => ops.update("Encap", byUuid(await find("Encap", "chassis_name", "b")), { ip: "127.0.0.13" }),
    ],
    [
      "say that another has caught up",
      async () => ops.update("Chassis_Private", byUuid(await find("Chassis_Private", "name", "b")), { nb_cfg: 99 }),
    ],
    ["make a Chassis of another name", async () => ops.insert("Chassis", { name: "c" })],
    ["make a port", async () => ops.insert("Port_Binding", { logical_port: "evil", tunnel_key: 99 })],
    ["delete a port", async () => ops.delete("Port_Binding", byUuid(await find("Port_Binding", "logical_port", "of-b")))],
    [
      "give a port other addresses",
      async () => ops.update("Port_Binding", byUuid(await find("Port_Binding", "logical_port", "of-b")), { mac: "unknown" }),
    ],
    ["delete flows", async () => ops.delete("Logical_Flow", [["pipeline", "==", "ingress"]])],
    [
      "delete a network",
      async () => ops.delete("Datapath_Binding", byUuid(await find("Datapath_Binding", "external_ids:name", "blue"))),
    ],
    ["take the role away", async () => ops.update("Connection", [["target", "!=", ""]], { role: "" })],
    ["widen the role", async () => ops.update("RBAC_Permission", [["table", "==", "Chassis"]], { authorization: "" })],
  ])("does not let it %s", async (_, operation) => {
    expect(await tried(client, await operation())).toContain("permission error");
  });

  it("lets it claim ports that are another's: OVN's role looks at no row of Port_Binding", async () => {
    const port = byUuid(await find("Port_Binding", "logical_port", "of-b"));
    const mine = uuid(await find("Chassis", "name", "a"));
    expect(await tried(client, ops.update("Port_Binding", port, { chassis: mine }))).toBe("done");
    // The one that it belongs to takes it back.
    const theirs = await find("Chassis", "name", "b");
    await vi.waitFor(
      async () => expect(await ovn.sbctl("--bare", "--columns=chassis", "list", "Port_Binding", "of-b")).toBe(theirs),
      { timeout: 10_000, interval: 100 },
    );
  });

  it("lets it tell of neighbours", async () => {
    const datapath = uuid(await find("Datapath_Binding", "external_ids:name", "blue"));
    const neighbour = { logical_port: "vm", ip: "10.0.0.9", mac: "02:00:00:00:00:09", datapath };
    expect(await tried(client, ops.insert("MAC_Binding", neighbour))).toBe("done");
  });

  it("is needed, and must be of the nodes' authority", async () => {
    const stranger = await clientOf(await issue("a", DAY_MS, await withAuthority((one) => one)));
    const none = await clientOf({ key: "", cert: "", ca: "" });
    await vi.waitFor(() => expect([stranger.lastError, none.lastError]).not.toContain(undefined), { timeout: 10_000 });
    expect([stranger.connected, none.connected]).toEqual([false, false]);
  });
});

describe("ovn-controller in its role", () => {
  it("moves a port: two chassis, flows at the second one, let in by a RARP", async () => {
    await ovn.nbctl("lsp-set-options", "vm", "requested-chassis=a");
    await a.addPort("vm", "vm");
    await a.whenInstalled("vm");
    await b.addPort("vm", "vm");
    await ovn.nbctl("lsp-set-options", "vm", "requested-chassis=a,b", "activation-strategy=rarp");
    await b.whenInstalled("vm");
    const binding = async (column: string) => ovn.sbctl("--bare", `--columns=${column}`, "list", "Port_Binding", "vm");
    const [ofA, ofB] = [await find("Chassis", "name", "a"), await find("Chassis", "name", "b")];
    expect(await binding("chassis")).toBe(ofA);
    await vi.waitFor(async () => expect(await binding("additional_chassis")).toBe(ofB), { timeout: 10_000, interval: 100 });
    expect(await binding("options")).not.toContain("additional-chassis-activated");
    // As QEMU announces a guest that has just moved.
    const mac = "020000000001";
    await b.receive("vm", `ffffffffffff${mac}80350001080006040003${mac}00000000${mac}00000000`);
    await vi.waitFor(async () => expect(await binding("options")).toContain("additional-chassis-activated=b"), {
      timeout: 10_000,
      interval: 100,
    });
    await ovn.nbctl("lsp-set-options", "vm", "requested-chassis=b");
    await vi.waitFor(async () => expect(await binding("chassis")).toBe(ofB), { timeout: 10_000, interval: 100 });
    expect(await binding("additional_chassis")).toBe("");
  });

  it("takes its own Chassis up again after a power cut, also with another address", async () => {
    const before = await find("Chassis", "name", "b");
    await b.killController();
    await b.vsctl("set", "open", ".", "external_ids:ovn-encap-ip=127.0.0.14");
    await b.startController();
    await b.whenConnected();
    await vi.waitFor(() => find("Encap", "ip", "127.0.0.14"), { timeout: 10_000, interval: 100 });
    expect(await find("Chassis", "name", "b")).toBe(before);
    await ovn.nbctl("--wait=hv", "sync");
  });

  it("goes on over the end of its certificate, and takes a new one without a restart", async () => {
    const restart = async (): Promise<void> => {
      await ovn.sb.stop();
      await ovn.sb.start();
      await a.whenConnected();
    };
    const short = await issue("b", 6_000);
    const end = Date.now() + 6_500;
    await b.certify(short);
    await restart();
    await b.whenConnected();
    await pause(Math.max(0, end - Date.now()));
    // What is connected stays so.
    await ovn.nbctl("--wait=hv", "sync");
    expect(await b.connected()).toBe(true);
    await restart();
    await pause(2_000);
    expect(await b.connected()).toBe(false);
    await b.certify(await issue("b"));
    await b.whenConnected();
    await ovn.nbctl("--wait=hv", "sync");
  });
});
