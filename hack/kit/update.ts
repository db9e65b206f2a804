/** Updates in place: another QEMU under a running guest. */
import type { Host, HostRuntime } from "../../crds/host.ts";
import type { Instance } from "../../crds/instance.ts";
import type { Migration } from "../../crds/migration.ts";
import { tapName } from "../../crds/names.ts";
import { accountsOf } from "../bench/memory.ts";
import { inNode } from "../lab/index.ts";
import { apply, eventually, get } from "./cluster.ts";

export const isOver = ({ status }: Migration): boolean => ["Succeeded", "Failed", "Cancelled"].includes(status?.phase ?? "");

/** Makes a Migration of mode InPlace. */
export const beginUpdate = (namespace: string, instance: string, name: string, spec: object = {}): Promise<string> =>
  apply({
    apiVersion: "drover.dev/v1alpha1",
    kind: "Migration",
    metadata: { name, namespace },
    spec: { instance, mode: "InPlace", ...spec },
  });

/** The Migration as it has ended. */
export const endOf = (namespace: string, name: string, seconds = 90): Promise<Migration> =>
  eventually(
    async () => {
      const now = await get<Migration>(`dmig/${name}`, namespace);
      return isOver(now) ? now : undefined;
    },
    seconds,
    `migration ${name} ends`,
  );

/** The runtimes of a node, by the word of its agent: the current one, and the others. */
export const runtimesOf = async (node: string): Promise<{ current: HostRuntime | undefined; others: HostRuntime[] }> => {
  const { status } = await get<Host>(`dhost/${node}`);
  const all = status?.runtimes ?? [];
  return { current: all.find(({ current }) => current), others: all.filter(({ current }) => !current) };
};

/** Resolves when another runtime than `before` is the current one of each of these nodes; gives its version. */
export const runtimeAfter = async (nodes: readonly string[], before: string, seconds = 120): Promise<string> => {
  const versions = await Promise.all(
    nodes.map((node) =>
      eventually(
        async () => {
          const { current } = await runtimesOf(node);
          return current !== undefined && current.version !== before ? current.version : undefined;
        },
        seconds,
        `${node} has another runtime than ${before}`,
      ),
    ),
  );
  return versions[0] ?? "";
};

/** What must not grow with the number of updates. */
export interface Held {
  processes: number;
  descriptors: number;
  sockets: number;
  /** Of QEMU's own mount namespace, and of the node. */
  mounts: number;
  nodeMounts: number;
  links: number;
  /** Below the instance's directory, sockets included. */
  files: number;
  /** Index of the tap's interface: another one is another tap. */
  tapIndex: number;
  memoryMib: number;
}

const COUNT = [
  'p=$(pgrep -f "^/usr/bin/qemu-system-x86_64 -name guest=$1,")',
  'echo "$p" | wc -l',
  "p=$(echo $p | cut -d' ' -f1)",
  "ls /proc/$p/fd | wc -l",
  "ls -l /proc/$p/fd | grep -c socket:",
  "wc -l </proc/$p/mountinfo",
  "wc -l </proc/1/mountinfo",
  "ls /sys/class/net | wc -l",
  'find /var/lib/drover/instances/"$2" | wc -l',
  'cat /sys/class/net/"$3"/ifindex',
].join("\n");

export const heldBy = async (of: Instance): Promise<Held> => {
  const { uid, name, namespace = "" } = of.metadata;
  const { nodeName = "", guest, nics } = of.status ?? {};
  const tap = tapName(uid, nics?.[0]?.name ?? "");
  const text = await inNode(nodeName, "sh", ["-c", COUNT, "count", `${namespace}/${name}`, uid, tap]);
  const numbers = text.split("\n").map(Number);
  const at = (index: number): number => numbers[index] ?? Number.NaN;
  const { usage, pageCache } = await accountsOf(nodeName, guest?.claimUid ?? "");
  return {
    processes: at(0),
    descriptors: at(1),
    sockets: at(2),
    mounts: at(3),
    nodeMounts: at(4),
    links: at(5),
    files: at(6),
    tapIndex: at(7),
    memoryMib: (usage - pageCache) / 2 ** 20,
  };
};

/** Versions of the runtimes that lie on a node, whatever its agent says of them. */
export const runtimeDirectories = async (node: string): Promise<string[]> =>
  (await inNode(node, "ls", ["/var/lib/drover/runtime"])).split("\n").filter((name) => name !== "current" && name !== "");
