/** Keeps the node's switch running: looks, plans, acts. What it starts outlives it; what runs already it adopts. */
import { mkdir, readFile, rename, rm, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { Logger } from "../../kube/index.ts";
import { asMap, asOptional, byUuid, mapOf, ops } from "../../ovsdb/index.ts";
import { errorText, UserError } from "../errors.ts";
import type { Links } from "../nic/links.ts";
import { INTEGRATION_BRIDGE, type LocalSwitch } from "../nic/switch.ts";
import { onNode } from "../node.ts";
import type { LauncherConfig } from "./config.ts";
import { Daemon } from "./daemon.ts";
import { restoreFlows, saveFlows, type SavedFlows } from "./flows.ts";
import { planSwitch, type Step, type SwitchSeen } from "./plan.ts";
import { chooseDatapath, planSettings, type Datapath } from "./settings.ts";
import { openTree, removeUnused, runInTree, wantedVersion, type OvsTree } from "./tree.ts";
import { ensureUnderlayLink, underlayAddress, underlayParent, UNDERLAY_BRIDGE } from "./underlay.ts";

const CONNECT_MS = 10_000;
const HURRY_MS = 20;

export interface LauncherParts {
  config: LauncherConfig;
  links: Links;
  local: LocalSwitch;
  log: Logger;
  /** ovn-central's endpoints, as ovn-controller takes them; undefined while none is known. */
  ovnRemote: () => string | undefined;
  /** Called when a daemon ended by itself. */
  onEnd: (daemon: string) => void;
  /** Whether the kernel can do the switching. Default: asks the kernel, which may load a module. */
  kernelModule?: () => Promise<boolean>;
}

export class Launcher {
  readonly #parts: LauncherParts;
  readonly #database: Daemon;
  readonly #vswitchd: Daemon;
  readonly #logDir: string;
  #datapath: Datapath | undefined;

  constructor(parts: LauncherParts) {
    this.#parts = parts;
    const { home, runtimes, runDir, cgroup } = parts.config;
    this.#logDir = join(home, "log");
    const files = { runtimes, runDir, logDir: this.#logDir, cgroup };
    this.#database = new Daemon("ovsdb-server", files);
    this.#vswitchd = new Daemon("ovs-vswitchd", files);
  }

  get #databaseFile(): string {
    return join(this.#parts.config.home, "conf.db");
  }

  get #flowsFile(): string {
    return join(this.#parts.config.runDir, "drover-flows.json");
  }

  /**
   * One round: brings the switch to the wanted version with the wanted settings. Repeatable; changes nothing when all is right.
   * Throws UserError for what an administrator can mend.
   */
  async ensure(signal: AbortSignal): Promise<void> {
    const { config, log } = this.#parts;
    await mkdir(this.#logDir, { recursive: true });
    await mkdir(config.runDir, { recursive: true });
    const version = await wantedVersion(config.runtimes, config.runtimeVersion);
    const tree = await openTree(config.runtimes, version);
    const seen = await this.#look();
    if (seen.stranger !== undefined) {
      throw new UserError(
        "ForeignSwitch",
        `another Open vSwitch runs on this node, ${seen.stranger}; stop and disable it (systemctl disable --now openvswitch-switch), or keep Drover's pods off this node`,
      );
    }
    const steps = planSwitch(seen, version);
    const routine = steps.every((step) => ["connect", "settings", "address"].includes(step));
    if (!routine) log.info({ steps, version }, "bringing up the switch");
    for (const step of steps) {
      signal.throwIfAborted();
      const begun = performance.now();
      await this.#run(step, tree, signal);
      if (!routine) log.info({ step, ms: Math.round(performance.now() - begun) }, "step done");
    }
    await this.#watch();
    await Promise.all([this.#database.ping(), this.#vswitchd.ping()]);
    await Promise.all([this.#database.rotateLog(), this.#vswitchd.rotateLog()]);
    if (!routine) {
      const removed = await removeUnused(config.runtimes, new Set([version]));
      log.info({ version, datapath: this.#datapath, removed }, "the switch runs");
    }
  }

  /** Ends both daemons: guests lose their network. Only for taking Drover off a node, and for tests. */
  async stop(): Promise<void> {
    await this.#vswitchd.stop();
    await this.#database.stop();
  }

  /** Stops looking; the daemons run on. */
  close(): void {
    this.#database.unwatch();
    this.#vswitchd.unwatch();
  }

  async #look(): Promise<SwitchSeen> {
    const [database, vswitchd] = await Promise.all([this.#database.find(), this.#vswitchd.find()]);
    const { local } = this.#parts;
    const root = local.replica.synced ? [...local.replica.rows("Open_vSwitch").values()][0] : undefined;
    return {
      database: { version: database.running?.version, file: await isFile(this.#databaseFile) },
      vswitchd: { version: vswitchd.running?.version },
      stranger: database.stranger ?? vswitchd.stranger,
      savedFlows: await isFile(this.#flowsFile),
      restoreWait: asMap(root?.["other_config"]).get("flow-restore-wait") === "true",
    };
  }

  async #run(step: Step, tree: OvsTree, signal: AbortSignal): Promise<void> {
    switch (step) {
      case "create-database":
        return this.#createDatabase(tree);
      case "convert-database":
        return this.#convertDatabase(tree);
      case "start-database":
        return this.#startDatabase(tree, signal);
      case "stop-database":
        return this.#stopDatabase(signal);
      case "connect":
        return this.#connect(signal);
      case "save-flows":
        return this.#saveFlows(tree);
      case "stop-vswitchd":
        return this.#vswitchd.stop();
      case "settings":
        return this.#settings();
      case "start-vswitchd":
        return this.#startVswitchd(tree, signal);
      case "address":
        return this.#address(signal);
      case "restore-flows":
        return this.#restoreFlows(tree);
      case "end-restore":
        return this.#endRestore();
    }
  }

  async #createDatabase(tree: OvsTree): Promise<void> {
    const temporary = `${this.#databaseFile}.new`;
    await rm(temporary, { force: true });
    await runInTree(tree, tree.ovsdbTool, ["create", temporary, tree.schema]);
    await rename(temporary, this.#databaseFile);
  }

  async #convertDatabase(tree: OvsTree): Promise<void> {
    const file = this.#databaseFile;
    const { stdout } = await runInTree(tree, tree.ovsdbTool, ["needs-conversion", file, tree.schema]);
    if (stdout.trim() !== "yes") return;
    const temporary = `${file}.new`;
    await rm(temporary, { force: true });
    await runInTree(tree, tree.ovsdbTool, ["convert", file, tree.schema, temporary]);
    await rename(temporary, file);
  }

  async #startDatabase(tree: OvsTree, signal: AbortSignal): Promise<void> {
    const socket = join(this.#parts.config.runDir, "db.sock");
    await rm(socket, { force: true });
    const remote = `--remote=punix:${socket}`;
    await this.#database.start(tree, tree.ovsdbServer, [...this.#database.options(), remote, this.#databaseFile], signal);
  }

  /** Resolves when our own connection is seen to have ended too: what follows must not take it for a living one. */
  async #stopDatabase(signal: AbortSignal): Promise<void> {
    await this.#database.stop();
    const { client } = this.#parts.local;
    const late = AbortSignal.any([signal, AbortSignal.timeout(CONNECT_MS)]);
    const ended = Promise.withResolvers<void>();
    const forget = client.onState(() => ended.resolve());
    late.addEventListener("abort", () => ended.resolve(), { once: true });
    if (client.connected && !late.aborted) await ended.promise;
    forget();
  }

  async #connect(signal: AbortSignal): Promise<void> {
    const { local } = this.#parts;
    const late = AbortSignal.timeout(CONNECT_MS);
    // The client's own back-off is for servers that are away; this one has just been started.
    const hurry = setInterval(() => local.client.retryNow(), HURRY_MS);
    try {
      local.client.retryNow();
      await local.replica.whenSynced(AbortSignal.any([signal, late]));
    } catch (error) {
      throw new UserError("SwitchDown", `ovsdb-server on this node did not answer within ${CONNECT_MS} ms`, { cause: error });
    } finally {
      clearInterval(hurry);
    }
    // A new database is empty: its one row is made by whoever comes first.
    if (local.replica.rows("Open_vSwitch").size === 0) await local.client.transact([ops.insert("Open_vSwitch", {})]);
  }

  async #settings(): Promise<void> {
    const { config, local, links, log } = this.#parts;
    const datapath = await this.#chooseDatapath();
    this.#datapath = datapath;
    const underlay = datapath === "userspace" && config.underlay.mode === "macvlan";
    const parent = config.underlay.parent ?? (underlay ? await underlayParent(links, config.nodeIp) : "");
    const mac = underlay ? await ensureUnderlayLink(links, { parent, nodeName: config.nodeName }) : undefined;
    const operations = planSettings(
      { root: local.root(), bridges: local.replica.rows("Bridge"), ports: local.replica.rows("Port") },
      {
        nodeName: config.nodeName,
        ovnRemote: config.ovn.remote ?? this.#parts.ovnRemote(),
        encapIp: underlay ? underlayAddress(config.underlay.cidr, config.nodeIp).address : config.nodeIp,
        datapath,
        underlayMac: mac,
      },
    );
    if (operations.length === 0) return;
    log.info({ operations: operations.length, datapath, parent: parent || undefined }, "the switch's settings change");
    const bump = ops.mutate("Open_vSwitch", byUuid(local.root().uuid), [["next_cfg", "+=", 1]]);
    await local.client.transact([...operations, bump]);
  }

  async #chooseDatapath(): Promise<Datapath> {
    const { config, local } = this.#parts;
    const bridge = local.bridge(INTEGRATION_BRIDGE);
    const kernelModule = config.datapath !== "userspace" && (await (this.#parts.kernelModule ?? hasKernelModule)());
    if (config.datapath === "kernel" && !kernelModule) {
      throw new UserError(
        "NoKernelDatapath",
        "ovs.datapath is kernel, but this node's kernel has no module openvswitch; install it or set ovs.datapath to auto or userspace",
      );
    }
    const integrationBridge = bridge === undefined ? undefined : asOptional(bridge.row["datapath_type"]);
    return chooseDatapath(config.datapath, { kernelModule, integrationBridge });
  }

  async #startVswitchd(tree: OvsTree, signal: AbortSignal): Promise<void> {
    const database = `unix:${join(this.#parts.config.runDir, "db.sock")}`;
    const noKernel = this.#datapath === "userspace" ? ["--disable-system"] : [];
    await this.#vswitchd.start(tree, tree.vswitchd, [...this.#vswitchd.options(), ...noKernel, database], signal);
    // Only then are its bridges and interfaces its own: those that a killed one left may still be looked at before.
    await this.#parts.local.apply([], { waitMs: 15_000, signal });
  }

  /** The bridge's interface is vswitchd's own tap, which a vswitchd that ends takes with it, address and all. */
  async #address(signal: AbortSignal): Promise<void> {
    const { config, links, local } = this.#parts;
    if (this.#datapath !== "userspace" || config.underlay.mode !== "macvlan") return;
    const { address, prefix } = underlayAddress(config.underlay.cidr, config.nodeIp);
    if (await links.hasAddress(UNDERLAY_BRIDGE, address)) return;
    if ((await links.get(UNDERLAY_BRIDGE)) === undefined) await local.apply([], { signal });
    await links.replaceAddress(UNDERLAY_BRIDGE, `${address}/${prefix}`);
    await links.set(UNDERLAY_BRIDGE, ["up"]);
    this.#parts.log.info({ address, bridge: UNDERLAY_BRIDGE }, "the tunnels' address is set");
  }

  /** A switch that does not give its flows is replaced all the same: ovn-controller writes them again, a second later. */
  async #saveFlows(tree: OvsTree): Promise<void> {
    const { config, local, log } = this.#parts;
    let saved: SavedFlows;
    try {
      saved = await saveFlows(tree, config.runDir, INTEGRATION_BRIDGE);
    } catch (error) {
      log.warn({ err: error }, "the flows could not be saved; guests are silent until ovn-controller has written them again");
      return;
    }
    await writeFile(`${this.#flowsFile}.new`, JSON.stringify(saved), { mode: 0o600 });
    await rename(`${this.#flowsFile}.new`, this.#flowsFile);
    const wait = mapOf({ "flow-restore-wait": "true" });
    await local.client.transact([ops.mutate("Open_vSwitch", byUuid(local.root().uuid), [["other_config", "insert", wait]])]);
  }

  async #restoreFlows(tree: OvsTree): Promise<void> {
    const { config, log } = this.#parts;
    if (!(await isFile(this.#flowsFile))) return;
    try {
      const saved = JSON.parse(await readFile(this.#flowsFile, "utf8")) as SavedFlows;
      await restoreFlows(tree, config.runDir, saved);
    } catch (error) {
      log.warn({ err: error }, "the flows could not be restored; guests are silent until ovn-controller has written them again");
    }
  }

  async #endRestore(): Promise<void> {
    const { local } = this.#parts;
    await local.client.transact([
      ops.mutate("Open_vSwitch", byUuid(local.root().uuid), [["other_config", "delete", ["flow-restore-wait"]]]),
    ]);
    await rm(this.#flowsFile, { force: true });
  }

  async #watch(): Promise<void> {
    for (const daemon of [this.#database, this.#vswitchd]) {
      const { running } = await daemon.find();
      if (running === undefined)
        throw new UserError("SwitchDown", `${daemon.name} ended again; see ${daemon.logFile} on the node`);
      await daemon.watch(running, () => this.#parts.onEnd(daemon.name));
    }
  }
}

/** Whether the kernel can do the switching; loads the module where the node has one. */
async function hasKernelModule(): Promise<boolean> {
  if (await isThere("/sys/module/openvswitch")) return true;
  const failure = await onNode("modprobe", ["openvswitch"], { deadlineMs: 10_000 }).then(
    () => undefined,
    (error: unknown) => errorText(error),
  );
  return failure === undefined && (await isThere("/sys/module/openvswitch"));
}

const isThere = (path: string): Promise<boolean> =>
  stat(path).then(
    () => true,
    () => false,
  );

const isFile = (path: string): Promise<boolean> =>
  stat(path).then(
    (info) => info.isFile(),
    () => false,
  );
