/** The wire between two nodes of the lab. */
import { inNode, lab } from "../lab/index.ts";

/** Address of a node on the wire. */
export const addressOf = async (node: string): Promise<string> => {
  const found = lab().nodes.find(({ name }) => name === node);
  if (found === undefined) throw new Error(`the lab has no node ${node}`);
  return found.address;
};

/** Frames to the peer go to a hardware address that nobody has: they vanish without a word, as on a cut wire. One way; gives what mends it. */
export const cutLink = async (from: string, to: string): Promise<() => Promise<void>> => {
  const peer = await addressOf(to);
  await inNode(from, "ip", ["neigh", "replace", peer, "lladdr", "02:00:00:00:00:01", "nud", "permanent", "dev", "eth0"]);
  return async () => void (await inNode(from, "ip", ["neigh", "del", peer, "dev", "eth0"]));
};
