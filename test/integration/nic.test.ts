/** NICs on a real Open vSwitch (userspace datapath); what ovn-controller would write is written by hand. */
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { execa } from "execa";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { tapName } from "../../crds/names.ts";
import type { NicStatus } from "../../crds/instance.ts";
import { silentLogger } from "../../kube/index.ts";
import { LocalSwitch, Nics, type OurNic } from "../../node-agent/nic/index.ts";
import { ipHere } from "../../node-agent/nic/links.ts";
import { OvsdbClient } from "../../ovsdb/index.ts";
import { cannotPlayNode, makeNode, type TestNode } from "./ovs-node.ts";

const unable = await cannotPlayNode();
const uid = "6f1c3f0e-0000-4000-8000-000000000001";
const nic = (over: Partial<NicStatus> = {}): NicStatus => ({
  name: "eth0",
  network: "blue",
  mac: "52:54:00:00:00:01",
  ipv4: "10.10.0.5",
  port: "default.web.eth0.6f1c3f0e",
  mtu: 1442,
  ...over,
});
const tap = tapName(uid, "eth0");
const USER = 64_001;

describe.skipIf(unable !== undefined)(`NICs ${unable ?? ""}`, () => {
  let node: TestNode;
  let run: string;
  let local: LocalSwitch;
  let nics: Nics;
  const stop = new AbortController();
  const seen: OurNic[] = [];
  const daemons: (() => Promise<unknown>)[] = [];

  const vsctl = (...args: string[]): Promise<string> =>
    execa("ovs-vsctl", [`--db=unix:${run}/db.sock`, "-t", "10", ...args]).then(({ stdout }) => stdout.trim());
  const startVswitchd = async (): Promise<void> => {
    const daemon = [
      "ovs-vswitchd",
      `unix:${run}/db.sock`,
      "--disable-system",
      `--pidfile=${run}/v.pid`,
      `--unixctl=${run}/v.ctl`,
    ];
    const [command, ...args] = [...node.before, ...daemon, `--log-file=${run}/v.log`, "-vconsole:off", "--detach"];
    await execa(command, args, { env: { OVS_RUNDIR: run } });
  };

  beforeAll(async () => {
    node = await makeNode("dnic");
    run = join(node.directory, "run");
    await mkdir(run);
    const env = { env: { OVS_RUNDIR: run } };
    await execa("ovsdb-tool", ["create", `${run}/conf.db`, "/usr/share/openvswitch/vswitch.ovsschema"], env);
    const options = [
      `--remote=punix:${run}/db.sock`,
      `--pidfile=${run}/db.pid`,
      `--unixctl=${run}/db.ctl`,
      `--log-file=${run}/db.log`,
    ];
    await execa("ovsdb-server", [`${run}/conf.db`, ...options, "-vconsole:off", "--detach"], env);
    await vsctl("--no-wait", "init");
    await startVswitchd();
    for (const ctl of ["v.ctl", "db.ctl"])
      daemons.push(() => execa("ovs-appctl", ["-t", `${run}/${ctl}`, "exit"], { reject: false }));
    await vsctl("add-br", "br-int", "--", "set", "bridge", "br-int", "datapath_type=netdev", "fail_mode=secure");
    const client = new OvsdbClient({
      remotes: [{ kind: "unix", path: `${run}/db.sock` }],
      database: "Open_vSwitch",
      log: silentLogger,
    });
    local = new LocalSwitch(client);
    nics = new Nics({ local, links: node.links, log: silentLogger });
    nics.onChange((one) => seen.push(one));
    client.start(stop.signal);
    await local.replica.whenSynced(AbortSignal.timeout(10_000));
  });

  afterAll(async () => {
    stop.abort();
    for (const end of daemons) await end();
    await node?.remove();
  });

  const opened = (): Promise<void> =>
    local.until(
      () => local.interface(tap)?.ifindex !== undefined,
      5_000,
      undefined,
      () => new Error("vswitchd did not open the tap"),
    );

  test("makes a tap of one queue that belongs to the guest's user, and its port", async () => {
    expect(await nics.ensure({ instanceUid: uid, nic: nic() }, USER)).toEqual({ tap });
    const link = await node.links.get(tap);
    expect(link).toMatchObject({ mtu: 1442, up: true, tap: { multiQueue: false, user: String(USER) } });
    await opened();
    expect(local.interface(tap)?.ifindex).toBe(link?.ifindex);
    expect(await vsctl("get", "interface", tap, "external_ids:iface-id")).toBe("default.web.eth0.6f1c3f0e");
    expect(await vsctl("port-to-br", tap)).toBe("br-int");
  });

  test("a repeat writes nothing", async () => {
    const before = await vsctl("get", "open_vswitch", ".", "next_cfg");
    await nics.ensure({ instanceUid: uid, nic: nic() }, USER);
    expect(await vsctl("get", "open_vswitch", ".", "next_cfg")).toBe(before);
  });

  test("tells when OVN has installed the port's flows", async () => {
    expect(nics.installed(tap)).toBe(false);
    await vsctl("set", "interface", tap, "external_ids:ovn-installed=true");
    await expect.poll(() => seen.at(-1)).toEqual({ tap, instanceUid: uid, nic: "eth0", installed: true });
    expect(nics.installed(tap)).toBe(true);
  });

  test("another MTU and another logical port are set without touching the tap", async () => {
    const before = await node.links.get(tap);
    await nics.ensure({ instanceUid: uid, nic: nic({ mtu: 1400, port: "default.web.eth0.other" }) }, USER);
    const after = await node.links.get(tap);
    expect(after).toMatchObject({ ifindex: before?.ifindex, mtu: 1400 });
    expect(await vsctl("get", "interface", tap, "external_ids:iface-id")).toBe("default.web.eth0.other");
    await nics.ensure({ instanceUid: uid, nic: nic() }, USER);
  });

  test("mends a tap that was deleted and made again behind the switch's back", async () => {
    const ip = ipHere(node.before);
    const before = await node.links.get(tap);
    await node.links.remove(tap);
    await node.links.addTap(tap, USER);
    await ip(["link", "set", tap, "mtu", "1442", "up"]);
    const made = await node.links.get(tap);
    expect(made?.ifindex).not.toBe(before?.ifindex);
    await nics.ensure({ instanceUid: uid, nic: nic() }, USER);
    await expect.poll(() => local.interface(tap)?.ifindex).toBe(made?.ifindex);
    expect(local.interface(tap)?.error).toBeUndefined();
  });

  test("brings back a tap that is gone", async () => {
    await node.links.remove(tap);
    await nics.ensure({ instanceUid: uid, nic: nic() }, USER);
    const link = await node.links.get(tap);
    await expect.poll(() => local.interface(tap)?.ifindex).toBe(link?.ifindex);
  });

  test("sweeps what no instance has, and keeps the rest", async () => {
    const orphan = "6f1c3f0e-0000-4000-8000-00000000dead";
    await nics.ensure({ instanceUid: orphan, nic: nic({ port: "default.gone.eth0.x" }) }, USER);
    await node.links.addTap("d00000000000001", USER);
    await ipHere(node.before)(["tuntap", "add", "dev", "theirs0", "mode", "tap"]);
    const removed = await nics.sweep(() => ({ taps: new Set([tap]), instances: new Set([uid]) }));
    expect(removed.sort()).toEqual([tapName(orphan, "eth0"), "d00000000000001"].sort());
    expect(await node.links.get(tap)).toBeDefined();
    expect(await node.links.get("theirs0")).toBeDefined();
    expect(nics.all().map((one) => one.instanceUid)).toEqual([uid]);
  });

  test("removes the port, then the tap; twice is fine", async () => {
    await nics.remove(uid, "eth0");
    expect(await node.links.get(tap)).toBeUndefined();
    expect(await vsctl("list-ports", "br-int")).toBe("");
    await nics.remove(uid, "eth0");
  });

  test("says so when the switch does not answer", async () => {
    await execa("ovs-appctl", ["-t", `${run}/v.ctl`, "exit"]);
    await nics.ensure({ instanceUid: uid, nic: nic() }, USER);
    await expect(local.apply([], { waitMs: 200 })).rejects.toMatchObject({ reason: "SwitchDown" });
    await startVswitchd();
    await opened();
    await execa("ovs-appctl", ["-t", `${run}/db.ctl`, "exit"]);
    await expect.poll(() => local.replica.synced).toBe(false);
    await expect(nics.ensure({ instanceUid: uid, nic: nic() }, USER)).rejects.toMatchObject({ reason: "SwitchDown" });
  });
});
