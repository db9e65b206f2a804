/** The same guest moved by `virsh migrate --copy-storage-all`. */
import { randomUUID } from "node:crypto";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { inNode } from "../../lab/index.ts";
import type { Moved, Mover } from "../mover.ts";
import { rooted } from "../qemu.ts";
import { readTraces } from "../traces.ts";
import type { LibvirtHost, LibvirtWish } from "./hosts.ts";
import { domainXml, machineLike } from "./settings.ts";

const MOVE_MS = 300_000;

export class LibvirtGuest implements Mover {
  readonly way = "libvirt";
  readonly #wish: LibvirtWish;
  readonly #hosts: readonly LibvirtHost[];
  #host: LibvirtHost;

  private constructor(wish: LibvirtWish, hosts: readonly LibvirtHost[], host: LibvirtHost) {
    this.#wish = wish;
    this.#hosts = hosts;
    this.#host = host;
  }

  /** Boots it on its node. */
  static async start(wish: LibvirtWish, hosts: readonly LibvirtHost[]): Promise<LibvirtGuest> {
    const { name, node, port, argv, image, diskBytes } = wish;
    const host = hosts.find((one) => one.node === node);
    if (host === undefined) throw new Error(`no libvirt on ${node}`);
    const guest = new LibvirtGuest(wish, hosts, host);
    await port.unplug(node);
    const make = `cp --reflink=auto ${image} ${guest.#disk}; truncate --size=${diskBytes} ${guest.#disk}; ${port.makeTap}`;
    await inNode(node, "sh", ["-ec", make]);
    await port.chassis(node);
    await port.plug(node);
    const disk = `/disks/${name}.raw`;
    const { mac } = port.address;
    const xml = domainXml({ name, uuid: randomUUID(), like: machineLike(argv), disk, tap: port.tap, mac });
    await writeFile(join(await rooted(node, host.etc), `${name}.xml`), xml);
    await host.virsh(["create", `/etc/${name}.xml`]);
    return guest;
  }

  get address(): string {
    return this.#wish.port.address.ipv4;
  }

  get node(): string {
    return this.#host.node;
  }

  async move(to: string): Promise<Moved> {
    const { name, port, diskBytes } = this.#wish;
    const source = this.#host;
    const target = this.#hosts.find((one) => one.node === to);
    if (target === undefined) throw new Error(`no libvirt on ${to}`);
    const begun = performance.now();
    await Promise.all([
      port.chassis(source.node, to),
      inNode(to, "sh", ["-ec", `truncate --size=${diskBytes} ${this.#disk}; ${port.makeTap}`]),
    ]);
    await port.plug(to);
    const where = [`qemu+tcp://${target.address}/system`, "--migrateuri", `tcp://${target.address}`];
    const how = ["--live", "--copy-storage-all", ...(source.tls ? ["--tls"] : [])];
    await source.virsh(["migrate", ...how, name, ...where], { deadlineMs: MOVE_MS });
    await port.chassis(to);
    this.#host = target;
    await port.unplug(source.node);
    await inNode(source.node, "rm", ["-f", this.#disk]);
    const totalMs = performance.now() - begun;
    return { totalMs, course: [{ mark: "over", ms: totalMs }] };
  }

  traces(): Promise<string[]> {
    return readTraces(`${this.#host.logs}/${this.#wish.name}.log`);
  }

  async remove(): Promise<void> {
    const { name, port } = this.#wish;
    await this.#host.virsh(["destroy", name]);
    await port.unplug(this.node);
    await port.remove();
    await inNode(this.node, "rm", ["-f", this.#disk]);
  }

  get #disk(): string {
    return `/var/lib/drover/pools/${this.#wish.pool}/${this.#wish.name}.raw`;
  }
}
