/**
 * A chassis without a node: a real ovn-controller with a switch of its own, whose ports are dummies. Nothing of the machine's
 * network is touched; packets are put in by hand.
 */
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { execa } from "execa";
import { vi } from "vitest";
import { writeChassisFile } from "../../node-agent/identity/chassis-file.ts";
import type { IdentityMaterial } from "../../node-agent/identity/certificate.ts";
import { fileAppears, OvsdbServer } from "./ovsdb-server.ts";

/** With the programs of another Open vSwitch first on PATH, this is where its schema is. */
const SCHEMA = process.env["DROVER_TEST_OVS_SCHEMA"] ?? "/usr/share/openvswitch/vswitch.ovsschema";

interface Daemon {
  /** Its control socket. */
  control: string;
  /** Kills it; resolves when it is gone. */
  end: () => Promise<void>;
}

export class Chassis {
  readonly name: string;
  readonly directory: string;
  readonly #database: OvsdbServer;
  readonly #southbound: { remote: string; caFile: string };
  #vswitchd: Daemon | undefined;
  #controller: Daemon | undefined;

  private constructor(name: string, directory: string, southbound: { remote: string; caFile: string }) {
    this.name = name;
    this.directory = directory;
    this.#southbound = southbound;
    this.#database = new OvsdbServer(directory, "conf");
  }

  /** Starts all of it; `encapIp` must be the chassis' alone. `caFile`: the authority of the southbound database's server. */
  static async start(
    name: string,
    parent: string,
    southbound: { remote: string; caFile: string },
    encapIp: string,
    material: IdentityMaterial,
  ): Promise<Chassis> {
    const directory = join(parent, name);
    await mkdir(directory);
    const chassis = new Chassis(name, directory, southbound);
    await chassis.#database.create(SCHEMA);
    await chassis.#database.start();
    await chassis.vsctl("--no-wait", "init");
    chassis.#vswitchd = await chassis.#run("ovs-vswitchd", ["--enable-dummy=override", "--disable-system"]);
    const ids = { "system-id": name, "ovn-remote": southbound.remote, "ovn-encap-type": "geneve", "ovn-encap-ip": encapIp };
    const settings = Object.entries({ ...ids, "ovn-monitor-all": "true" }).map(
      ([key, value]) => `external_ids:${key}="${value}"`,
    );
    await chassis.vsctl("set", "open", ".", ...settings);
    await chassis.vsctl("add-br", "br-int", "--", "set", "bridge", "br-int", "fail-mode=secure", "datapath_type=dummy");
    await chassis.certify(material);
    await chassis.startController();
    return chassis;
  }

  /** As the launcher writes it. */
  async certify(material: IdentityMaterial): Promise<void> {
    await writeChassisFile(this.directory, "", material);
  }

  /** With the options that the chart gives it. */
  async startController(): Promise<void> {
    const own = join(this.directory, "chassis.pem");
    const tls = [`--private-key=${own}`, `--certificate=${own}`, `--ca-cert=${this.#southbound.caFile}`];
    this.#controller = await this.#run("ovn-controller", tls);
  }

  async killController(): Promise<void> {
    const running = this.#controller;
    this.#controller = undefined;
    await running?.end();
  }

  /** Resolves when it answers: the control socket, of a name that has its pid in it, is the last thing that a daemon makes. */
  async #run(program: string, options: string[]): Promise<Daemon> {
    const args = [`unix:${this.#database.socket}`, ...options, `--log-file=${join(this.directory, `${program}.log`)}`];
    const running = execa(program, [...args, "-vconsole:off"], {
      env: { OVS_RUNDIR: this.directory, OVN_RUNDIR: this.directory },
      reject: false,
    });
    const control = join(this.directory, `${program}.${running.pid}.ctl`);
    const ended = running.then((result) => {
      throw new Error(`${program} did not start: ${result.stderr || result.shortMessage}`);
    });
    ended.catch(() => undefined); // its end matters only until it is up
    await Promise.race([fileAppears(control), ended]);
    const end = async (): Promise<void> => {
      running.kill("SIGKILL");
      await running;
    };
    return { control, end };
  }

  async stop(): Promise<void> {
    await this.killController();
    await this.#vswitchd?.end();
    await this.#database.stop();
  }

  async vsctl(...args: string[]): Promise<string> {
    const all = [`--db=unix:${this.#database.socket}`, "--timeout=20", ...args];
    return (await execa("ovs-vsctl", all, { timeout: 30_000, env: { OVS_RUNDIR: this.directory } })).stdout;
  }

  /** A port as an instance's tap is one. */
  async addPort(name: string, ifaceId: string): Promise<void> {
    await this.vsctl(
      "add-port",
      "br-int",
      name,
      "--",
      "set",
      "interface",
      name,
      `external_ids:iface-id=${ifaceId}`,
      "type=dummy",
    );
  }

  /** Puts a frame in at a port, hexadecimal. */
  async receive(port: string, frame: string): Promise<void> {
    await appctl(this.#vswitchd, "netdev-dummy/receive", port, frame);
  }

  async connected(): Promise<boolean> {
    return (await appctl(this.#controller, "connection-status")) === "connected";
  }

  async whenConnected(): Promise<void> {
    await vi.waitFor(
      async () => {
        if (!(await this.connected())) throw new Error(`chassis ${this.name} is not connected to the southbound database`);
      },
      { timeout: 20_000, interval: 100 },
    );
  }

  /** Resolves when ovn-controller says that the port's flows are there. */
  async whenInstalled(port: string): Promise<void> {
    const args = ["--bare", "get", "interface", port, "external_ids:ovn-installed"];
    await vi.waitFor(() => this.vsctl(...args), { timeout: 20_000, interval: 100 });
  }
}

async function appctl(daemon: Daemon | undefined, ...command: string[]): Promise<string> {
  if (daemon === undefined) throw new Error("the daemon does not run");
  return (await execa("ovs-appctl", ["-T", "5", "-t", daemon.control, ...command], { timeout: 10_000 })).stdout.trim();
}
