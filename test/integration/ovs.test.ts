/** The launcher on a real Open vSwitch (userspace datapath), on a stand-in for a node. */
import { readFile, readdir } from "node:fs/promises";
import { join } from "node:path";
import { execa } from "execa";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { silentLogger } from "../../kube/index.ts";
import { LocalSwitch } from "../../node-agent/nic/switch.ts";
import { ipHere } from "../../node-agent/nic/links.ts";
import type { LauncherConfig } from "../../node-agent/ovs/config.ts";
import { Launcher } from "../../node-agent/ovs/launcher.ts";
import { asMap, OvsdbClient } from "../../ovsdb/index.ts";
import { cannotPlayNode, installTree, makeNode, type TestNode } from "./ovs-node.ts";

const unable = await cannotPlayNode();

describe.skipIf(unable !== undefined)(`ovs launcher ${unable ?? ""}`, () => {
  let node: TestNode;
  let config: LauncherConfig;
  let local: LocalSwitch;
  let launcher: Launcher;
  const ended: string[] = [];
  const stop = new AbortController();
  const before = process.env["DROVER_NODE_PID"];

  const pidOf = async (daemon: string): Promise<number> => Number(await readFile(join(config.runDir, `${daemon}.pid`), "utf8"));
  const makeLauncher = (remote: string, onEnd: (daemon: string) => void = (daemon) => ended.push(daemon)): Launcher =>
    new Launcher({
      config,
      links: node.links,
      local,
      log: silentLogger,
      ovnRemote: () => remote,
      onEnd,
      kernelModule: () => Promise.resolve(false),
    });
  const ofctl = (...args: string[]): Promise<string> =>
    execa("ovs-ofctl", ["-O", "OpenFlow14", ...args]).then(({ stdout }) => stdout);
  const bridge = (): string => `unix:${config.runDir}/br-int.mgmt`;
  const ensure = (): Promise<void> => launcher.ensure(AbortSignal.timeout(30_000));

  beforeAll(async () => {
    node = await makeNode("dovs");
    process.env["DROVER_NODE_PID"] = String(node.pid);
    const ip = ipHere(node.before);
    await ip(["link", "add", "eth0", "type", "veth", "peer", "name", "peer0"]);
    await ip(["address", "add", "10.147.0.11/16", "dev", "eth0"]);
    for (const link of ["eth0", "peer0"]) await ip(["link", "set", link, "up"]);
    config = {
      nodeName: "n1",
      nodeIp: "10.147.0.11",
      home: join(node.directory, "ovs"),
      runtimes: join(node.directory, "ovs/runtime"),
      runDir: join(node.directory, "run"),
      cgroup: node.cgroup,
      port: 0,
      datapath: "auto",
      runtimeVersion: undefined,
      underlay: { mode: "macvlan", parent: undefined, cidr: "10.97.0.0/24" },
      ovn: { namespace: "drover", service: "ovn-central", remote: undefined },
      chassis: undefined,
    };
    await installTree(config.runtimes, "v1");
    const client = new OvsdbClient({
      remotes: [{ kind: "unix", path: join(config.runDir, "db.sock") }],
      database: "Open_vSwitch",
      log: silentLogger,
    });
    local = new LocalSwitch(client);
    client.start(stop.signal);
    launcher = makeLauncher("ssl:10.147.0.1:6642");
  });

  afterAll(async () => {
    launcher?.close();
    await launcher?.stop();
    stop.abort();
    await node?.remove();
    if (before === undefined) delete process.env["DROVER_NODE_PID"];
    else process.env["DROVER_NODE_PID"] = before;
  });

  test("brings the switch up on a new node, outside any pod's cgroup", async () => {
    await ensure();
    const external = asMap(local.root().row["external_ids"]);
    expect(Object.fromEntries(external)).toMatchObject({
      "system-id": "n1",
      "ovn-remote": "ssl:10.147.0.1:6642",
      "ovn-encap-ip": "10.97.0.11",
      "ovn-bridge-datapath-type": "netdev",
    });
    expect(await node.links.hasAddress("br-phys", "10.97.0.11")).toBe(true);
    const [under, phys] = [await node.links.get("under0"), await node.links.get("br-phys")];
    expect(under?.mac).toBeTruthy();
    expect(phys?.mac).toBe(under?.mac);
    // The node's own interface keeps its address.
    expect(await node.links.hasAddress("eth0", "10.147.0.11")).toBe(true);
    for (const daemon of ["ovsdb-server", "ovs-vswitchd"]) {
      const cgroups = (await readFile(`/proc/${await pidOf(daemon)}/cgroup`, "utf8")).trim().split("\n");
      const wrong = cgroups.filter((line) => !line.endsWith(`/${node.cgroup}`));
      expect(wrong).toEqual([]);
    }
  });

  test("does nothing when all is right, and adopts what runs when it is new itself", async () => {
    const pids = [await pidOf("ovsdb-server"), await pidOf("ovs-vswitchd")];
    const serial = local.root().row["next_cfg"];
    await ensure();
    launcher.close();
    launcher = makeLauncher("ssl:10.147.0.1:6642");
    await ensure();
    expect([await pidOf("ovsdb-server"), await pidOf("ovs-vswitchd")]).toEqual(pids);
    expect(local.root().row["next_cfg"]).toEqual(serial);
  });

  test("starts vswitchd again when it ended, with the tunnels' address", async () => {
    const pid = await pidOf("ovs-vswitchd");
    const seen = ended.length;
    process.kill(pid, "SIGTERM");
    await expect.poll(() => ended.length).toBe(seen + 1);
    await ensure();
    expect(await pidOf("ovs-vswitchd")).not.toBe(pid);
    expect(await node.links.hasAddress("br-phys", "10.97.0.11")).toBe(true);
  });

  test("and when it was killed the hard way", async () => {
    const pid = await pidOf("ovs-vswitchd");
    const seen = ended.length;
    process.kill(pid, "SIGKILL");
    await expect.poll(() => ended.length).toBe(seen + 1);
    await ensure();
    expect(await pidOf("ovs-vswitchd")).not.toBe(pid);
    expect(await node.links.hasAddress("br-phys", "10.97.0.11")).toBe(true);
  });

  test("starts the database again when it was killed; vswitchd is not touched", async () => {
    const [database, vswitchd] = [await pidOf("ovsdb-server"), await pidOf("ovs-vswitchd")];
    process.kill(database, "SIGKILL");
    await expect.poll(() => ended.at(-1)).toBe("ovsdb-server");
    await ensure();
    expect(await pidOf("ovs-vswitchd")).toBe(vswitchd);
    expect(await pidOf("ovsdb-server")).not.toBe(database);
  });

  test("tells new endpoints of OVN, and keeps what others wrote", async () => {
    await execa("ovs-vsctl", [
      `--db=unix:${config.runDir}/db.sock`,
      "--no-wait",
      "set",
      "Open_vSwitch",
      ".",
      "external_ids:theirs=1",
    ]);
    launcher.close();
    launcher = makeLauncher("ssl:10.147.0.2:6642");
    await ensure();
    expect(Object.fromEntries(asMap(local.root().row["external_ids"]))).toMatchObject({
      "ovn-remote": "ssl:10.147.0.2:6642",
      theirs: "1",
    });
  });

  test("upgrades in place: flows, groups and tunnel metadata are there again, the old version is deleted", async () => {
    await ofctl("add-tlv-map", bridge(), "{class=0x102,type=0x80,len=4}->tun_metadata0");
    await ofctl("add-group", bridge(), "group_id=7,type=select,bucket=actions=drop");
    await ofctl("add-flow", bridge(), "table=3,priority=7,tun_metadata0=0x5,actions=group:7");
    const old = [await pidOf("ovsdb-server"), await pidOf("ovs-vswitchd")];
    await installTree(config.runtimes, "v2");
    await ensure();
    const now = [await pidOf("ovsdb-server"), await pidOf("ovs-vswitchd")];
    expect(now.filter((pid) => old.includes(pid))).toEqual([]);
    const flows = await ofctl("dump-flows", "--no-stats", bridge());
    expect(flows).toContain("priority=7,tun_metadata0=0x5 actions=group:7");
    expect(asMap(local.root().row["other_config"]).get("flow-restore-wait")).toBeUndefined();
    expect(await node.links.hasAddress("br-phys", "10.97.0.11")).toBe(true);
    expect((await readdir(config.runtimes)).sort()).toEqual(["current", "v2"]);
  });

  test("an upgrade that was cut off while vswitchd was stopped comes to its end", async () => {
    await ofctl("add-flow", bridge(), "table=4,priority=9,actions=drop");
    await installTree(config.runtimes, "v3");
    const cut = new AbortController();
    const original = node.links.get.bind(node.links);
    // The first thing after vswitchd's end that looks at an interface.
    node.links.get = () => {
      cut.abort();
      return Promise.reject(new Error("cut off"));
    };
    await expect(launcher.ensure(cut.signal)).rejects.toThrow("cut off");
    node.links.get = original;
    launcher.close();
    launcher = makeLauncher("ssl:10.147.0.2:6642");
    await ensure();
    expect(await ofctl("dump-flows", "--no-stats", bridge())).toContain("priority=9");
    expect(asMap(local.root().row["other_config"]).get("flow-restore-wait")).toBeUndefined();
  });

  test("refuses to share the node with another Open vSwitch", async () => {
    launcher.close();
    const elsewhere = { ...config, runtimes: join(node.directory, "elsewhere") };
    await installTree(elsewhere.runtimes, "v1");
    const other = new Launcher({
      config: elsewhere,
      links: node.links,
      local,
      log: silentLogger,
      ovnRemote: () => undefined,
      onEnd: () => undefined,
    });
    await expect(other.ensure(AbortSignal.timeout(5_000))).rejects.toThrow(/another Open vSwitch runs on this node/);
    await ensure();
  });
});
