/**
 * The lab's network: a hub namespace with a bridge, where the control plane lives; one namespace per node, joined to it;
 * one veth pair to this machine. Nothing else of this machine's own network is touched: no sysctl, no firewall rule.
 */
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { dirname } from "node:path";
import { z } from "zod";
import type { Lab, LabNode } from "./identity.ts";
import { LabError, run } from "./run.ts";

/** The word that says a namespace is complete: set last, in the same batch. */
const COMPLETE = "drover-lab-complete";

const inNet = (netns: string, command: string, args: string[], input?: string): Promise<string> =>
  run("nsenter", [`--net=${netns}`, "--", command, ...args], input === undefined ? {} : { input });

/** A file that holds a network namespace: mounted on it, so that the mounts below the lab's state are all there is to undo. */
const holdNamespace = async (file: string): Promise<void> => {
  await mkdir(dirname(file), { recursive: true });
  await writeFile(file, "");
  await run("unshare", [`--net=${file}`, "true"]);
};

const isMounted = async (path: string): Promise<boolean> =>
  (await readFile("/proc/self/mountinfo", "utf8")).split("\n").some((line) => line.split(" ")[4] === path);

/** Lets go of a namespace: the kernel takes its links away once its last process is gone. May be repeated. */
export const releaseNamespace = async (file: string): Promise<void> => {
  while (await isMounted(file)) await run("umount", ["-l", file]);
};

const isComplete = async (netns: string, link: string): Promise<boolean> =>
  (await isMounted(netns)) && (await inNet(netns, "ip", ["link", "show", link]).catch(() => "")).includes(COMPLETE);

/**
 * What TCP between the lab's machines is to go by: cubic, as on a Debian whose owner has not chosen; undefined where this kernel has none. This
 * machine may prefer bbr, which takes these links, with round trips of 8 microseconds and processors that are away for milliseconds, for slow
 * ones: a quarter of all moves took half as long again.
 */
const congestionControl = async (): Promise<string | undefined> => {
  const available = await readFile("/proc/sys/net/ipv4/tcp_available_congestion_control", "utf8").catch(() => "");
  return available
    .trim()
    .split(/\s+/)
    .find((one) => one === "cubic");
};

/** The route to the lab's machines, which adding the address has made, with how TCP is to go there. Pure. */
const speaking = (address: string, link: string, control: string | undefined): string[] => {
  const subnet = `${address.slice(0, address.lastIndexOf("."))}.0/24`;
  return control === undefined
    ? []
    : [`route replace ${subnet} dev ${link} proto kernel scope link src ${address} congctl ${control}`];
};

/** Steps of `ip -batch` for the hub. Pure. */
export const hubBatch = (lab: Lab, control?: string): string =>
  [
    "link set lo up",
    `link add ${lab.hub.bridge} type bridge forward_delay 0`,
    `addr add ${lab.hub.address}/24 dev ${lab.hub.bridge}`,
    `link set ${lab.hub.bridge} up`,
    ...speaking(lab.hub.address, lab.hub.bridge, control),
    ...lab.nodes.map((node) => `route add ${node.podCidr} via ${node.address}`),
    `link set ${lab.hub.bridge} alias ${COMPLETE}`,
  ].join("\n");

/** Hardware address of a node's eth0: locally administered, made of its own address. */
const nodeMac = (node: LabNode): string =>
  `02:d0:${node.address
    .split(".")
    .map((octet) => Number(octet).toString(16).padStart(2, "0"))
    .join(":")}`;

/** Steps of `ip -batch` inside a node's namespace, once its eth0 is there. Pure. */
export const nodeBatch = (lab: Lab, node: LabNode, control?: string): string =>
  [
    "link set lo up",
    // As on a machine, the card keeps its address over a power cut: neighbours, and tunnels' ends among them, remember it.
    `link set eth0 address ${nodeMac(node)}`,
    `addr add ${node.address}/24 dev eth0`,
    "link set eth0 up",
    ...speaking(node.address, "eth0", control),
    `route add default via ${lab.hub.address}`,
    ...lab.nodes.filter((other) => other.name !== node.name).map((other) => `route add ${other.podCidr} via ${other.address}`),
    `link set eth0 alias ${COMPLETE}`,
  ].join("\n");

/**
 * Takes a link away that is there. A namespace that is just being taken down still holds its links' other ends: they go now, or have gone by
 * themselves before that.
 */
export const dropLink = async (name: string, ip: (args: string[]) => Promise<unknown>): Promise<void> => {
  const isThere = (): Promise<boolean> =>
    ip(["link", "show", name]).then(
      () => true,
      () => false,
    );
  if (!(await isThere())) return;
  try {
    await ip(["link", "del", name]);
  } catch (error) {
    if (await isThere()) throw error;
  }
};

/** The hub namespace and this machine's link into it. May be repeated; an unfinished one is made anew. */
export const ensureHub = async (lab: Lab): Promise<void> => {
  const { netns, bridge } = lab.hub;
  if (!(await isComplete(netns, bridge))) {
    await releaseNamespace(netns);
    await holdNamespace(netns);
    await inNet(netns, "ip", ["-batch", "-"], hubBatch(lab, await congestionControl()));
  }
  const link = lab.host.link;
  if ((await run("ip", ["link", "show", link]).catch(() => "")).includes(COMPLETE)) return;
  await dropLink(link, (args) => run("ip", args));
  await run("ip", ["link", "add", link, "type", "veth", "peer", "name", "host", "netns", netns]);
  await inNet(netns, "ip", ["-batch", "-"], `link set host master ${bridge}\nlink set host up`);
  const batch = [
    `addr add ${lab.host.address}/24 dev ${link}`,
    `link set ${link} up`,
    ...lab.nodes.map((node) => `route add ${node.podCidr} via ${node.address}`),
    `link set ${link} alias ${COMPLETE}`,
  ];
  await run("ip", ["-batch", "-"], { input: batch.join("\n") });
};

/** A node's namespace with its eth0 on the hub's bridge, and the services' address rewritten to the API server's. */
export const ensureNodeNetwork = async (lab: Lab, node: LabNode): Promise<void> => {
  if (await isComplete(node.netns, "eth0")) return;
  await releaseNamespace(node.netns);
  await holdNamespace(node.netns);
  await dropLink(node.name, (args) => inNet(lab.hub.netns, "ip", args));
  await inNet(lab.hub.netns, "ip", ["link", "add", node.name, "type", "veth", "peer", "name", "eth0", "netns", node.netns]);
  await inNet(lab.hub.netns, "ip", ["-batch", "-"], `link set ${node.name} master ${lab.hub.bridge}\nlink set ${node.name} up`);
  for (const chain of ["OUTPUT", "PREROUTING"]) {
    const match = ["-d", lab.serviceAddress, "-p", "tcp", "--dport", "443"];
    const target = ["-j", "DNAT", "--to-destination", `${lab.hub.address}:${lab.apiPort}`];
    await inNet(node.netns, "iptables", ["-w", "-t", "nat", "-A", chain, ...match, ...target]);
  }
  await inNet(node.netns, "ip", ["-batch", "-"], nodeBatch(lab, node, await congestionControl()));
};

const routesSchema = z.array(z.object({ dst: z.string(), dev: z.string().optional() }));

const asRange = (cidr: string): [number, number] | undefined => {
  const match = /^(\d+)\.(\d+)\.(\d+)\.(\d+)(?:\/(\d+))?$/.exec(cidr);
  if (!match) return undefined;
  const [a, b, c, d] = match.slice(1, 5).map(Number);
  const start = (((a ?? 0) * 256 + (b ?? 0)) * 256 + (c ?? 0)) * 256 + (d ?? 0);
  return [start, start + 2 ** (32 - Number(match[5] ?? 32)) - 1];
};

/** Routes of this machine, other than the lab's own, that overlap a subnet. Pure. */
export const overlapping = (subnet: string, routes: { dst: string; dev?: string | undefined }[], ownLink: string): string[] => {
  const want = asRange(subnet);
  if (!want) throw new Error(`"${subnet}" is no IPv4 subnet`);
  return routes
    .filter((route) => route.dev !== ownLink)
    .filter((route) => {
      const range = asRange(route.dst);
      return range !== undefined && range[0] <= want[1] && range[1] >= want[0];
    })
    .map((route) => `${route.dst}${route.dev === undefined ? "" : ` (${route.dev})`}`);
};

/** Throws a sentence that helps when this machine already uses the lab's addresses. */
export const refuseTakenSubnet = async (lab: Lab): Promise<void> => {
  const routes = routesSchema.parse(JSON.parse(await run("ip", ["-j", "-4", "route", "show", "table", "all"])));
  const taken = overlapping(lab.subnet, routes, lab.host.link);
  if (taken.length > 0) {
    throw new LabError(
      `the lab's addresses ${lab.subnet} are in use on this machine: ${taken.slice(0, 3).join(", ")}. ` +
        "Set DROVER_LAB_OCTET to a number x such that 10.x.0.0/16 is free, for every command of this lab.",
    );
  }
};
