/** The guests that are moved: one of each kind, with the same machine, image, size and load. */
import type { Instance } from "../../crds/instance.ts";
import { WeighedAs } from "../bench/weight.ts";
import { isReady, POOL, type World } from "../bench/world.ts";
import { ask, statusWithin } from "../kit/guest.ts";
import { inNode } from "../lab/index.ts";
import type { Probe } from "../lab/probe.ts";
import { DroverGuest, type MoveWatch } from "./drover.ts";
import { HandGuest } from "./hand.ts";
import type { LibvirtHosts } from "./libvirt/hosts.ts";
import { GuestPort, type Databases } from "./network.ts";
import type { Case } from "./plan.ts";

export const LABEL = "drover-bench";
const DISK_BYTES = 2 ** 30;
const FILL_MIB = 64;

export interface Ground {
  world: World;
  probe: Probe;
  databases: Databases;
  moves: MoveWatch;
  tls: boolean;
}

/** An instance that may run on any of the labelled nodes. */
export const makeDrover = async (
  ground: Ground,
  name: string,
  memoryMib: number,
): Promise<{ of: Instance; guest: DroverGuest }> => {
  await ground.world.create(name, { memory: `${memoryMib}Mi`, placement: { nodeSelector: { [LABEL]: "yes" } } });
  const { now: of } = await ground.world.until(name, isReady, 180);
  return { of, guest: new DroverGuest(of, ground.moves, ground.tls) };
};

export interface Like {
  node: string;
  argv: string[];
  runtimeVersion: string;
  logicalPort: string;
  image: string;
}

/** What another guest needs to be the same machine as an instance that runs. */
export const likeOf = async (of: Instance): Promise<Like> => {
  const { nodeName: node, guest, nics } = of.status ?? {};
  const logicalPort = nics?.[0]?.port;
  if (node === undefined || guest?.pid === undefined || guest.runtimeVersion === undefined || logicalPort === undefined)
    throw new Error(`${of.metadata.name} does not run: ${JSON.stringify(of.status)}`);
  const argv = (await inNode(node, "cat", [`/proc/${guest.pid}/cmdline`])).split("\0").filter((one) => one !== "");
  const images = `/var/lib/drover/pools/${POOL}/images`;
  const [image] = (await inNode(node, "ls", [images])).split("\n").filter((file) => file.endsWith(".raw"));
  if (image === undefined) throw new Error(`pool ${POOL} on ${node} has no image`);
  return { node, argv, runtimeVersion: guest.runtimeVersion, logicalPort, image: `${images}/${image}` };
};

/** Addresses outside what the network gives to instances; see the bench's network. */
export const addressOf = (number: number): { mac: string; ipv4: string } => ({
  mac: `02:51:00:00:00:${number.toString(16).padStart(2, "0")}`,
  ipv4: `10.77.254.${number}`,
});

export const makeHand = async ({ databases, tls }: Ground, of: Instance, number: number): Promise<HandGuest> => {
  const { node, argv, runtimeVersion, logicalPort, image } = await likeOf(of);
  const name = `hand${number}`;
  const port = new GuestPort(databases, name, addressOf(number));
  await port.create(logicalPort);
  const weighed = await WeighedAs.instance(of, `bench-${name}`);
  const guest = new HandGuest({ name, port, argv, runtimeVersion, pool: POOL, image, diskBytes: DISK_BYTES, tls, weighed });
  await guest.start(node);
  return guest;
};

export const makeLibvirt = async ({ databases }: Ground, of: Instance, number: number, hosts: LibvirtHosts) => {
  const { node, argv, logicalPort, image } = await likeOf(of);
  const port = new GuestPort(databases, `virt${number}`, addressOf(100 + number));
  await port.create(logicalPort);
  return hosts.start({ name: `virt${number}`, node, port, argv, pool: POOL, image, diskBytes: DISK_BYTES });
};

/** Gives it something to copy. */
export const load = async (probe: Probe, address: string, { eatMib }: Pick<Case, "eatMib">): Promise<void> => {
  await statusWithin(probe, address, 90);
  await ask(probe, address, `/eat/${eatMib}`);
  await ask(probe, address, `/fill/${FILL_MIB}`);
};
