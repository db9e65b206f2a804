/**
 * The same guest moved by hand: the shortest script that does all that a live move needs, straight to both monitors and to
 * OVN's databases. What Drover's moves are compared with.
 */
import { randomBytes, randomUUID } from "node:crypto";
import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { WeighedAs } from "../bench/weight.ts";
import { inNode, lab } from "../lab/index.ts";
import { nodeNamed } from "../lab/identity.ts";
import { INSIDE, ownArguments } from "./arguments.ts";
import type { Mark, Moved, Mover, Step } from "./mover.ts";
import type { GuestPort } from "./network.ts";
import { readTraces } from "./traces.ts";
import { rooted, startQemu, type Machine } from "./qemu.ts";

const PORTS = { ram: 49_900, disk: 49_901 } as const;
const MAX_PAUSE_MS = 300;
const DISK = "disk-root";
const MIRROR = "mirror";
const KEY = "psk";
/** As Drover: TLS 1.3 only, the cipher that costs least first. */
const PRIORITY = "NORMAL:-VERS-ALL:+VERS-TLS1.3:-CIPHER-ALL:+AES-128-GCM:+AES-256-GCM:+CHACHA20-POLY1305";

export interface HandOptions {
  name: string;
  port: GuestPort;
  /** QEMU's arguments of a guest of Drover's with the same machine, program first. */
  argv: readonly string[];
  runtimeVersion: string;
  pool: string;
  /** File of the node that the disk begins as. */
  image: string;
  diskBytes: number;
  tls: boolean;
  /** Where its QEMUs run. */
  weighed: WeighedAs;
}

const at = (node: string): string => nodeNamed(lab(), node).address;
const inet = (node: string, port: number) => ({ type: "inet", host: at(node), port: String(port) });

export class HandGuest implements Mover {
  readonly way = "hand";
  readonly #options: HandOptions;
  readonly #uuid = randomUUID();
  #machine: Machine | undefined;
  #launches = 0;

  constructor(options: HandOptions) {
    this.#options = options;
  }

  get address(): string {
    return this.#options.port.address.ipv4;
  }

  get node(): string {
    return this.#running.node;
  }

  /** Boots it on a node that has the image. */
  async start(node: string): Promise<void> {
    const { port, image, diskBytes } = this.#options;
    const { disk, home } = this.#paths;
    await port.unplug(node);
    const make = `rm -rf ${home}; mkdir -p ${home}; cp --reflink=auto ${image} ${disk}; truncate --size=${diskBytes} ${disk}; ${port.makeTap}`;
    await inNode(node, "sh", ["-ec", make]);
    await port.chassis(node);
    const [machine] = await Promise.all([this.#launch(node, []), port.plug(node)]);
    this.#machine = machine;
  }

  move(to: string, onSwitchover: () => void = () => undefined): Promise<Moved> {
    return this.#move(to, onSwitchover, false);
  }

  /** Stops it, then does the same: what a move cost before there were live ones. */
  async stopAndCopy(to: string): Promise<Moved> {
    return { ...(await this.#move(to, () => undefined, true)), way: "stop" };
  }

  async #move(to: string, onSwitchover: () => void, still: boolean): Promise<Moved> {
    const source = this.#running;
    const { diskBytes, port } = this.#options;
    const { disk, home } = this.#paths;
    const begun = performance.now();
    const course: Mark[] = [];
    const done = (mark: Step): void => void course.push({ mark, ms: performance.now() - begun });
    source.forget();
    if (still) await source.qmp.execute("stop");

    // the target: network, disk and a QEMU that waits
    await Promise.all([
      this.#writeKey([source.node, to]),
      port.chassis(source.node, to),
      inNode(to, "sh", ["-ec", `mkdir -p ${home}; truncate --size=${diskBytes} ${disk}; ${port.makeTap}`]),
    ]);
    const [target] = await Promise.all([this.#launch(to, ["-S", "-incoming", "defer"]), port.plug(to)]);
    await Promise.all([
      this.#setUp(target, "server"),
      target.qmp.execute("nbd-server-start", {
        addr: { type: "inet", data: { host: at(to), port: String(PORTS.disk) } },
        ...this.#tls,
      }),
      target.qmp.execute("block-export-add", { type: "nbd", id: MIRROR, "node-name": DISK, name: "root", writable: true }),
      target.qmp.execute("migrate-incoming", { uri: `tcp:${at(to)}:${PORTS.ram}` }),
      this.#setUp(source, "client"),
    ]);
    done("ready");

    // the disk, then the memory
    await source.qmp.execute("blockdev-add", {
      driver: "nbd",
      "node-name": MIRROR,
      server: inet(to, PORTS.disk),
      export: "root",
      discard: "unmap",
      "detect-zeroes": "unmap",
      ...this.#tls,
    });
    await source.qmp.execute("blockdev-mirror", { "job-id": MIRROR, device: DISK, target: MIRROR, sync: "full" });
    await source.seen(({ name }) => name === "BLOCK_JOB_READY", "the mirror is ready");
    done("disks-ready");
    await source.qmp.execute("migrate", { uri: `tcp:${at(to)}:${PORTS.ram}` });

    // the switchover
    await source.migrated("pre-switchover");
    done("switchover");
    onSwitchover();
    await source.qmp.execute("block-job-cancel", { device: MIRROR });
    await source.seen(({ name }) => name === "BLOCK_JOB_COMPLETED", "the mirror is finished");
    await source.qmp.execute("migrate-continue", { state: "pre-switchover" });
    await Promise.all([source.migrated("completed"), target.migrated("completed")]);
    await target.qmp.execute("cont");
    done("runs");

    // what is left over
    await port.chassis(to);
    await source.qmp.execute("blockdev-del", { "node-name": MIRROR });
    // its client has left, which it may not have heard yet
    await target.qmp.execute("block-export-del", { id: MIRROR, mode: "hard" });
    await target.qmp.execute("nbd-server-stop");
    if (this.#options.tls) {
      await target.qmp.execute("migrate-set-parameters", { "tls-creds": "" });
      await target.qmp.execute("object-del", { id: KEY });
    }
    this.#machine = target;
    await this.#clear(source);
    done("over");
    return { totalMs: performance.now() - begun, course };
  }

  async traces(): Promise<string[]> {
    return readTraces(`${this.#paths.home}/qmp*.log`);
  }

  async remove(): Promise<void> {
    if (this.#machine !== undefined) await this.#clear(this.#machine);
    this.#machine = undefined;
    await this.#options.port.remove();
    for (const { name } of lab().nodes) {
      await inNode(name, "rm", ["-rf", this.#paths.home]);
      await this.#options.weighed.remove(name);
    }
  }

  get #running(): Machine {
    if (this.#machine === undefined) throw new Error(`${this.#options.name} does not run`);
    return this.#machine;
  }

  get #paths() {
    const { name, pool } = this.#options;
    return { home: `/var/lib/drover/bench-hand/${name}`, disk: `/var/lib/drover/pools/${pool}/hand-${name}.raw` };
  }

  get #tls() {
    return this.#options.tls ? { "tls-creds": KEY } : {};
  }

  #launch(node: string, more: string[]): Promise<Machine> {
    const { argv, runtimeVersion, name, port, weighed } = this.#options;
    const { home, disk } = this.#paths;
    this.#launches += 1;
    const monitor = `qmp${this.#launches}`;
    const places = { name, uuid: this.#uuid, tap: port.tap, mac: port.address.mac };
    const args = [...ownArguments(argv, places, `${INSIDE.home}/${monitor}`), ...more];
    const runtime = `/var/lib/drover/runtime/${runtimeVersion}`;
    return startQemu({ node, runtime, disk, home, monitor, args, by: weighed.by });
  }

  async #writeKey(nodes: readonly string[]): Promise<void> {
    if (!this.#options.tls) return;
    const key = randomBytes(32).toString("hex");
    for (const node of nodes) {
      const directory = await rooted(node, join(this.#paths.home, "keys"));
      await mkdir(directory, { recursive: true });
      await writeFile(join(directory, "keys.psk"), `hand:${key}\n`, { mode: 0o600 });
    }
  }

  /** Commands of one monitor are carried out in the order in which they are sent. */
  async #setUp({ qmp }: Machine, endpoint: "client" | "server"): Promise<void> {
    const on = ["events", "return-path", "late-block-activate", ...(endpoint === "client" ? ["pause-before-switchover"] : [])];
    const limits = endpoint === "client" ? { "downtime-limit": MAX_PAUSE_MS, "max-bandwidth": 0 } : {};
    const identity = endpoint === "client" ? { username: "hand" } : {};
    await Promise.all([
      qmp.execute("migrate-set-capabilities", { capabilities: on.map((capability) => ({ capability, state: true })) }),
      ...(this.#options.tls
        ? [
            qmp.execute("object-add", {
              "qom-type": "tls-creds-psk",
              id: KEY,
              dir: `${INSIDE.home}/keys`,
              endpoint,
              priority: PRIORITY,
              ...identity,
            }),
          ]
        : []),
      qmp.execute("migrate-set-parameters", { ...limits, ...this.#tls }),
    ]);
  }

  async #clear(machine: Machine): Promise<void> {
    await machine.quit();
    await this.#options.port.unplug(machine.node);
    await inNode(machine.node, "rm", ["-f", this.#paths.disk]);
  }
}
