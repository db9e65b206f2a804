/**
 * The same update by hand: the shortest script that gives a running guest another QEMU on its node, straight to both monitors. What
 * Drover's updates are compared with. The new QEMU is handed the very descriptor of the old one's tap, as by Drover.
 */
import { randomUUID } from "node:crypto";
import { access } from "node:fs/promises";
import { dirname, join } from "node:path";
import { inHierarchy } from "../bench/weight.ts";
import { INSIDE, ownArguments } from "../bench-migration/arguments.ts";
import { addressOf, likeOf } from "../bench-migration/guests.ts";
import type { Mark, Step } from "../bench-migration/mover.ts";
import { GuestPort, type Databases } from "../bench-migration/network.ts";
import { rooted, startQemu, type Machine } from "../bench-migration/qemu.ts";
import { readTraces } from "../bench-migration/traces.ts";
import type { Instance } from "../../crds/instance.ts";
import { accountOf } from "../bench/memory.ts";
import { POOL } from "../bench/world.ts";
import { inNode } from "../lab/index.ts";
import type { Updated, Updater } from "./updater.ts";

const LAUNCHER = join(import.meta.dirname, "launch.pl");
const TAP_DESCRIPTOR = 9;
const DISK_BYTES = 2 ** 30;
const APPEARS_MS = 20_000;

/** The NIC by a descriptor that the launcher hands over, instead of by the tap's name. Pure. */
export const withTapDescriptor = (args: readonly string[]): string[] =>
  args.map((value, at) => {
    if (args[at - 1] !== "-netdev") return value;
    const id = value.split(",").find((part) => part.startsWith("id="));
    return `tap,${id},fd=${TAP_DESCRIPTOR}`;
  });

const channel = (type: "main" | "cpr") => ({
  "channel-type": type,
  addr: { transport: "socket", type: "unix", path: `${INSIDE.home}/${type}` },
});
const CHANNELS = [channel("main"), channel("cpr")];

const runs = async ({ qmp }: Machine): Promise<boolean> =>
  ((await qmp.execute("query-status")) as { status: string }).status === "running";

/** What the guest is: as an instance that runs, with its own disk, tap and address. */
interface Like {
  node: string;
  argv: readonly string[];
  image: string;
  logicalPort: string;
}

export class HandUpdates implements Updater {
  readonly way = "hand";
  readonly node: string;
  readonly #name: string;
  readonly #port: GuestPort;
  readonly #argv: readonly string[];
  readonly #uuid = randomUUID();
  #version: string;
  #machine: Machine | undefined;
  #launches = 0;
  /** Directories of the node: the claim's account of the instance that it is like, and its own beside that. */
  readonly #claim: string;
  readonly account: string;

  private constructor(name: string, like: Like, version: string, port: GuestPort, claim: string) {
    this.#name = name;
    this.node = like.node;
    this.#argv = like.argv;
    this.#version = version;
    this.#port = port;
    this.#claim = claim;
    this.account = join(dirname(claim), `bench-${name}`);
  }

  /** Boots one that is the same machine as an instance that runs and was never updated. */
  static async like(of: Instance, databases: Databases, number: number): Promise<HandUpdates> {
    const like = await likeOf(of);
    const name = `hand${number}`;
    const port = new GuestPort(databases, name, addressOf(number));
    await port.create(like.logicalPort);
    const claim = dirname(await accountOf(like.node, of.status?.guest?.claimUid ?? ""));
    const guest = new HandUpdates(name, like, like.runtimeVersion, port, claim);
    await guest.#start(like.image);
    return guest;
  }

  get address(): string {
    return this.#port.address.ipv4;
  }

  get version(): string {
    return this.#version;
  }

  async update(to: string): Promise<Updated> {
    const old = this.#running;
    const begun = performance.now();
    const course: Mark[] = [];
    const done = (mark: Step): void => void course.push({ mark, ms: performance.now() - begun });
    old.forget();
    const from = await this.#pid();
    const waiting = CHANNELS.flatMap((one) => ["-incoming", JSON.stringify(one)]);
    const launched = this.#launch(to, from, waiting);
    // Its monitor answers only once the old one has connected.
    await Promise.race([this.#listens("cpr"), launched]);
    done("ready");
    await old.qmp.execute("migrate-set-capabilities", { capabilities: [{ capability: "events", state: true }] });
    await old.qmp.execute("migrate-set-parameters", { mode: "cpr-transfer" });
    await old.qmp.execute("migrate", { channels: CHANNELS });
    const next = await launched;
    await old.migrated("completed");
    while (!(await runs(next)));
    done("runs");
    this.#machine = next;
    this.#version = to;
    await old.quit();
    await inNode(this.node, "rm", ["-f", `${this.#home}/main`, `${this.#home}/cpr`]);
    done("over");
    return { totalMs: performance.now() - begun, course };
  }

  traces(): Promise<string[]> {
    return readTraces(`${this.#home}/qmp*.log`);
  }

  async remove(): Promise<void> {
    await this.#machine?.quit();
    this.#machine = undefined;
    await this.#port.unplug(this.node);
    await this.#port.remove();
    const away = 'rm -rf "$0" "$1"; for d in /sys/fs/cgroup/"$2" /sys/fs/cgroup/*/"$2"; do [ -d "$d" ] && rmdir "$d"; done; true';
    await inNode(this.node, "sh", ["-c", away, this.#home, this.#disk, inHierarchy(this.account)]);
  }

  async #start(image: string): Promise<void> {
    await this.#port.unplug(this.node);
    const tap = `ip tuntap add dev ${this.#port.tap} mode tap && ip link set ${this.#port.tap} mtu 1442 up`;
    const files = `rm -rf ${this.#home}; mkdir -p ${this.#home}; cp --reflink=auto ${image} ${this.#disk}; truncate --size=${DISK_BYTES} ${this.#disk}`;
    await inNode(this.node, "sh", ["-ec", `${files}; ${tap}`]);
    await this.#port.chassis(this.node);
    const [machine] = await Promise.all([this.#launch(this.#version, "-", []), this.#port.plug(this.node)]);
    this.#machine = machine;
  }

  get #running(): Machine {
    if (this.#machine === undefined) throw new Error(`${this.#name} does not run`);
    return this.#machine;
  }

  get #home(): string {
    return `/var/lib/drover/bench-hand/${this.#name}`;
  }

  get #disk(): string {
    return `/var/lib/drover/pools/${POOL}/hand-${this.#name}.raw`;
  }

  /** @param from process that has the tap open, or "-" to open it */
  #launch(version: string, from: string, more: readonly string[]): Promise<Machine> {
    this.#launches += 1;
    const monitor = `qmp${this.#launches}`;
    const places = { name: this.#name, uuid: this.#uuid, tap: this.#port.tap, mac: this.#port.address.mac };
    const args = withTapDescriptor(ownArguments(this.#argv, places, `${INSIDE.home}/${monitor}`));
    return startQemu({
      node: this.node,
      runtime: `/var/lib/drover/runtime/${version}`,
      disk: this.#disk,
      home: this.#home,
      monitor,
      args: [...args, ...more],
      by: ["perl", LAUNCHER, inHierarchy(this.account), inHierarchy(this.#claim), this.#port.tap, from],
    });
  }

  async #pid(): Promise<string> {
    const pattern = `^/usr/bin/qemu-system-x86_64 -name guest=hand/${this.#name},`;
    return (await inNode(this.node, "pgrep", ["-f", pattern])).trim();
  }

  async #listens(name: string): Promise<void> {
    const socket = await rooted(this.node, join(this.#home, name));
    for (const end = performance.now() + APPEARS_MS; performance.now() < end; ) {
      const there = await access(socket).then(
        () => true,
        () => false,
      );
      if (there) return;
      await new Promise((resolve) => setTimeout(resolve, 2));
    }
    throw new Error(`no socket ${name} after ${APPEARS_MS / 1000} s`);
  }
}
