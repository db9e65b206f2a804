/** A real OVN central in a directory of its own: both databases and ovn-northd. No chassis: nothing of the machine's network is touched. */
import { readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { execa, type ResultPromise } from "execa";
import { fileAppears, freePort, makeCertificates, makeDirectory, needPrograms, OvsdbServer, ownAddress } from "./ovsdb-server.ts";

/** With the programs of another OVN first on PATH, this is where its schemas are. */
const SCHEMAS = process.env["DROVER_TEST_OVN_SCHEMAS"] ?? "/usr/share/ovn";
const NB_SCHEMA = join(SCHEMAS, "ovn-nb.ovsschema");
const SB_SCHEMA = join(SCHEMAS, "ovn-sb.ovsschema");

/** How the chart serves the southbound database to nodes: who they are is told by certificates of this authority. */
export interface NodesMayConnect {
  /** PEM */
  authority: string;
}

export class OvnCentral {
  readonly directory: string;
  readonly nb: OvsdbServer;
  readonly sb: OvsdbServer;
  #northd: ResultPromise | undefined;

  /** Where the northbound database also listens, by TLS; client certificates are in `directory` as ca.crt, tls.crt and tls.key. */
  readonly tls: { readonly host: string; readonly port: number };

  private constructor(directory: string, tls: { host: string; port: number }) {
    this.directory = directory;
    this.tls = tls;
    const own = [`--private-key=${join(directory, "ovn-central.key")}`, `--certificate=${join(directory, "ovn-central.crt")}`];
    this.nb = new OvsdbServer(directory, "nb", [
      `--remote=pssl:${tls.port}:${tls.host}`,
      ...own,
      `--ca-cert=${join(directory, "ca.crt")}`,
    ]);
    const nodes = ["--remote=db:OVN_Southbound,SB_Global,connections", ...own, `--ca-cert=${join(directory, "nodes.crt")}`];
    this.sb = new OvsdbServer(directory, "sb", nodes);
  }

  /** `nodes`: they reach the southbound database at `ssl:<host>:<port>` of what `serveNodes` gives. */
  static async start(nodes?: NodesMayConnect): Promise<OvnCentral> {
    await needPrograms("ovsdb-server", "ovsdb-tool", "ovn-northd", "ovn-nbctl", "ovn-sbctl", "ovn-trace");
    const directory = await makeDirectory();
    await makeCertificates(directory, "ovn-central", "tls");
    await writeFile(join(directory, "nodes.crt"), nodes?.authority ?? (await readFile(join(directory, "ca.crt"))));
    const ovn = new OvnCentral(directory, { host: ownAddress(), port: await freePort() });
    await ovn.nb.create(NB_SCHEMA);
    await ovn.sb.create(SB_SCHEMA);
    await Promise.all([ovn.nb.start(), ovn.sb.start()]);
    await ovn.nbctl("init");
    await ovn.sbctl("init");
    await ovn.#startNorthd();
    return ovn;
  }

  async #startNorthd(): Promise<void> {
    const control = join(this.directory, "northd.ctl");
    const there = fileAppears(control);
    const args = [
      `--ovnnb-db=unix:${this.nb.socket}`,
      `--ovnsb-db=unix:${this.sb.socket}`,
      `--unixctl=${control}`,
      "-vconsole:off",
    ];
    const log = [`--log-file=${join(this.directory, "northd.log")}`, `--pidfile=${join(this.directory, "northd.pid")}`];
    this.#northd = execa("ovn-northd", [...args, ...log], { reject: false });
    await there;
  }

  /** Ends everything and removes the directory. */
  async stop(): Promise<void> {
    this.#northd?.kill();
    await this.#northd;
    await Promise.all([this.nb.stop(), this.sb.stop()]);
    await rm(this.directory, { recursive: true, force: true });
  }

  /** Replaces the northbound database by an empty one, as after the loss of a disk. */
  async loseNorthbound(): Promise<void> {
    await this.nb.stop("SIGKILL");
    await this.nb.create(NB_SCHEMA);
    await this.nb.start();
    await this.nbctl("init");
  }

  /** Lets nodes connect, in the role that the chart gives them; the remote for them. */
  async serveNodes(): Promise<string> {
    const port = await freePort();
    await this.sbctl("set-connection", "role=ovn-controller", `pssl:${port}:${this.tls.host}`);
    return `ssl:${this.tls.host}:${port}`;
  }

  async nbctl(...args: string[]): Promise<string> {
    return (await execa("ovn-nbctl", [`--db=unix:${this.nb.socket}`, "--timeout=20", ...args], { timeout: 30_000 })).stdout;
  }

  async sbctl(...args: string[]): Promise<string> {
    return (await execa("ovn-sbctl", [`--db=unix:${this.sb.socket}`, "--timeout=20", ...args], { timeout: 30_000 })).stdout;
  }

  /** Resolves when northd has turned all of the northbound into logical flows. */
  async synced(): Promise<void> {
    await this.nbctl("--wait=sb", "sync");
  }

  /** What becomes of a packet, as ovn-trace tells it. */
  async trace(datapath: string, microflow: string): Promise<string> {
    await this.synced();
    const { stdout } = await execa("ovn-trace", [`--db=unix:${this.sb.socket}`, "--minimal", datapath, microflow], {
      timeout: 30_000,
    });
    return stdout;
  }

  /** The same with every step. */
  async traceFully(datapath: string, microflow: string): Promise<string> {
    await this.synced();
    const { stdout } = await execa("ovn-trace", [`--db=unix:${this.sb.socket}`, datapath, microflow], { timeout: 30_000 });
    return stdout;
  }
}
