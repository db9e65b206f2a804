/** What of a guest is where it should not be. */
import type { Instance } from "../../crds/instance.ts";
import { tapName } from "../../crds/names.ts";
import { kubectl } from "../kit/cluster.ts";
import { leftOn } from "../kit/guest.ts";
import { portOptions } from "../kit/northbound.ts";
import { inNode, lab } from "../lab/index.ts";

/** Processes, taps and notes of the guest on a node. */
const SCRIPT = [
  'for p in $(pgrep -f "guest=$1," || true); do echo "process"; done',
  'shift; for t in "$@"; do [ -e "/sys/class/net/$t" ] && echo "tap $t"; done',
  'for n in moves/"$0".json cold/"$0"; do [ -e "/var/lib/drover/$n" ] && echo "note $n"; done',
  // Of migration.dataPorts; others of the node listen as well.
  'ss -Hltnp "sport >= 49152 and sport <= 49407" | grep qemu | sed "s/^/listens: /"',
  "true",
].join("; ");

const seenOn = async (node: string, { metadata, status }: Instance): Promise<string[]> => {
  const { uid, name, namespace = "" } = metadata;
  const taps = (status?.nics ?? []).map((nic) => tapName(uid, nic.name));
  return (await inNode(node, "sh", ["-c", SCRIPT, uid, `${namespace}/${name}`, ...taps])).split("\n").filter(Boolean);
};

/**
 * Processes, volumes, exports, files, taps, notes, claims and chassis that the guest has beyond what it needs where it lives; empty when all is
 * as it should be.
 */
export const leftovers = async (of: Instance): Promise<string[]> => {
  const { uid, name, namespace = "" } = of.metadata;
  const { nodeName } = of.status ?? {};
  const runs = of.spec.power !== "Stopped";
  const found: string[] = [];
  for (const { name: node } of lab().nodes) {
    const seen = await seenOn(node, of);
    if (node !== nodeName) found.push(...[...seen, ...(await leftOn(node, uid))].map((line) => `${node}: ${line}`));
    else {
      // Only what its life there asks for: one process and its taps.
      const processes = seen.filter((line) => line === "process").length;
      if (processes !== (runs ? 1 : 0)) found.push(`${node}: ${processes} processes`);
      found.push(...seen.filter((line) => /^note|^listens/.test(line)).map((line) => `${node}: ${line}`));
    }
  }
  const claims = (await kubectl(["-n", namespace, "get", "pods", "-l", `drover.dev/claim=${name}`, "-o", "name"]))
    .split("\n")
    .filter(Boolean);
  if (claims.length !== (runs ? 1 : 0)) found.push(`claims: ${claims.join(" ")}`);
  const port = of.status?.nics?.[0]?.port;
  if (runs && port !== undefined) {
    const { chassis, strategy } = await portOptions(port);
    if (chassis !== nodeName || strategy !== "") found.push(`port: requested-chassis=${chassis} ${strategy}`);
  }
  return found;
};
