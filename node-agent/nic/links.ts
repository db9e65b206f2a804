/** Network interfaces of the node, by iproute2. The agent's pod is in the node's network namespace. */
import { execa } from "execa";
import { z } from "zod";
import { CommandError } from "../errors.ts";

const linkJson = z.object({
  ifname: z.string(),
  ifindex: z.int(),
  mtu: z.int(),
  address: z.string().default(""),
  flags: z.array(z.string()).default([]),
  link: z.string().optional(),
  linkinfo: z
    .object({
      info_kind: z.string().optional(),
      info_data: z
        .object({
          type: z.string().optional(),
          multi_queue: z.boolean().optional(),
          user: z.union([z.string(), z.int()]).optional(),
        })
        .optional(),
    })
    .optional(),
});

export interface Link {
  name: string;
  ifindex: number;
  mtu: number;
  mac: string;
  up: boolean;
  /** Somebody has the other end: for a tap, a process holds it open. */
  carrier: boolean;
  kind: string | undefined;
  /** Interface, of this network namespace, that it is a child of. */
  parent: string | undefined;
  tap: { multiQueue: boolean; user: string | undefined } | undefined;
}

const DEADLINE_MS = 10_000;

/** Runs `ip` to its end and gives what it printed. Throws CommandError. */
export type IpRunner = (args: readonly string[]) => Promise<string>;

/** Interfaces, each call a fresh look. */
export class Links {
  readonly #ip: IpRunner;

  constructor(ip: IpRunner = ipHere()) {
    this.#ip = ip;
  }

  async get(name: string): Promise<Link | undefined> {
    try {
      return parseLinks(await this.#ip(["-json", "-details", "link", "show", "dev", name]))[0];
    } catch (error) {
      if (error instanceof CommandError && /does not exist|Cannot find device/.test(error.stderr)) return undefined;
      throw error;
    }
  }

  async list(): Promise<Link[]> {
    return parseLinks(await this.#ip(["-json", "-details", "link", "show"]));
  }

  /** `ip link add ...`; one that is there already is left as it is. */
  async add(args: readonly string[]): Promise<void> {
    await this.#unless(/File exists/, ["link", "add", ...args]);
  }

  /**
   * A persistent tap of one queue that belongs to a user. With more the kernel would deal flows out over all processes that have one
   * open, and what it gives to one that stands still is lost when QEMU is replaced in place: that one hands its queue over instead.
   */
  async addTap(name: string, user: number): Promise<void> {
    await this.#ip(["tuntap", "add", "dev", name, "mode", "tap", "user", String(user)]);
  }

  async set(name: string, args: readonly string[]): Promise<void> {
    await this.#ip(["link", "set", "dev", name, ...args]);
  }

  /** Deletes an interface; one that is gone already is no error. */
  async remove(name: string): Promise<void> {
    await this.#unless(/does not exist|Cannot find device/, ["link", "del", "dev", name]);
  }

  /** Gives the interface the address; one that it has already is kept. */
  async replaceAddress(name: string, address: string): Promise<void> {
    await this.#ip(["address", "replace", address, "dev", name]);
  }

  async hasAddress(name: string, address: string): Promise<boolean> {
    const found = await this.#addresses(["dev", name]).catch((error: unknown) => {
      if (error instanceof CommandError && /does not exist/.test(error.stderr)) return [];
      throw error;
    });
    return found.some((link) => link.addresses.includes(address));
  }

  async withAddress(address: string): Promise<string | undefined> {
    return (await this.#addresses([])).find((link) => link.addresses.includes(address))?.name;
  }

  async ofDefaultRoute(): Promise<string | undefined> {
    const routes = z
      .array(z.object({ dev: z.string().optional() }))
      .parse(json(await this.#ip(["-json", "route", "show", "default"])));
    return routes.find((route) => route.dev !== undefined)?.dev;
  }

  async #addresses(args: string[]): Promise<{ name: string; addresses: string[] }[]> {
    const shape = z.array(
      z.object({ ifname: z.string().optional(), addr_info: z.array(z.object({ local: z.string().optional() })).default([]) }),
    );
    return shape
      .parse(json(await this.#ip(["-json", "address", "show", ...args])))
      .flatMap(({ ifname, addr_info }) =>
        ifname === undefined
          ? []
          : [{ name: ifname, addresses: addr_info.flatMap(({ local }) => (local === undefined ? [] : [local])) }],
      );
  }

  async #unless(harmless: RegExp, args: readonly string[]): Promise<void> {
    try {
      await this.#ip(args);
    } catch (error) {
      if (!(error instanceof CommandError && harmless.test(error.stderr))) throw error;
    }
  }
}

/** What `ip -json -details link` prints. Empty objects, which it prints for what it filtered out, are left out. */
export function parseLinks(text: string): Link[] {
  const entries = z.array(z.union([linkJson, z.object({})])).parse(json(text));
  return entries.flatMap((entry) => {
    if (!("ifname" in entry)) return [];
    const info = entry.linkinfo;
    const data = info?.info_data;
    return [
      {
        name: entry.ifname,
        ifindex: entry.ifindex,
        mtu: entry.mtu,
        mac: entry.address,
        up: entry.flags.includes("UP"),
        carrier: entry.flags.includes("LOWER_UP"),
        kind: info?.info_kind,
        parent: entry.link,
        tap:
          info?.info_kind === "tun" && data?.type === "tap"
            ? { multiQueue: data.multi_queue ?? false, user: data.user === undefined ? undefined : String(data.user) }
            : undefined,
      },
    ];
  });
}

const json = (text: string): unknown => JSON.parse(text.trim() === "" ? "[]" : text);

/** `ip` of this process' own files; `before` is put in front of it, for a network namespace that is not this process' own. */
export function ipHere(before: readonly string[] = []): IpRunner {
  return async (args) => {
    const [command = "ip", ...rest] = [...before, "ip", ...args];
    const result = await execa(command, rest, { reject: false, timeout: DEADLINE_MS, killSignal: "SIGKILL", stdin: "ignore" });
    if (!result.failed) return result.stdout;
    const words = result.stderr.trim() || result.shortMessage || "it failed without a word";
    throw new CommandError({
      command: ["ip", ...args].join(" "),
      ...(result.exitCode === undefined ? {} : { exitCode: result.exitCode }),
      timedOut: result.timedOut,
      stderr: result.stderr,
      message: result.timedOut
        ? `ip ${args.join(" ")} did not finish within ${DEADLINE_MS} ms`
        : `ip ${args.join(" ")}: ${words}`,
    });
  };
}
