/** When the guest's QEMUs ran, by their own word: every log is kept under a second name, for it goes with the instance's directory. */
import { inNode, lab } from "../lab/index.ts";
import { runChanges, type RunChange } from "./verdict.ts";

/** On the file system of the logs. */
const KEPT = "/var/lib/drover/chaos";
const EVERY_MS = 300;

const onAllNodes = async <T>(work: (node: string) => Promise<T>): Promise<(T | undefined)[]> =>
  // A node without power has no logs to give now; it has them again later.
  Promise.all(lab().nodes.map(({ name }) => work(name).catch(() => undefined)));

/** A log's inode names its QEMU: a second one writes to a file of its own. */
const KEEP =
  'mkdir -p "$1"; for f in /var/lib/drover/instances/"$0"/stderr*.log*; do [ -e "$f" ] && ln -f "$f" "$1/$(stat -c %i "$f")"; done; true';

export const keepTraces = (uid: string): Promise<unknown> => onAllNodes((node) => inNode(node, "sh", ["-c", KEEP, uid, KEPT]));

export const forgetTraces = (): Promise<unknown> => onAllNodes((node) => inNode(node, "rm", ["-rf", KEPT]));

/** Keeps what comes and goes until `stop` is called. */
export const watchTraces = (uid: string): { stop: () => Promise<void> } => {
  const ending = new AbortController();
  const work = (async () => {
    while (!ending.signal.aborted) {
      await keepTraces(uid);
      await new Promise((resolve) => setTimeout(resolve, EVERY_MS));
    }
  })();
  return {
    stop: async () => {
      ending.abort();
      await work;
    },
  };
};

/** All that the guest's QEMUs have said since `forgetTraces`. */
export const readTraces = async (uid: string): Promise<RunChange[]> => {
  await keepTraces(uid);
  const all = await onAllNodes(async (node) => {
    const files = (await inNode(node, "ls", [KEPT])).split("\n").filter(Boolean);
    const changes = await Promise.all(
      files.map(async (file) => runChanges(await inNode(node, "cat", [`${KEPT}/${file}`]), `${node}/${file}`)),
    );
    return changes.flat();
  });
  return all.flatMap((changes) => changes ?? []);
};

export const nodeOfQemu = (qemu: string): string => qemu.split("/")[0] ?? "";
