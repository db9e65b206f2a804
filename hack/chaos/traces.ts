/** When the guest's QEMUs ran, by their own word. */
import { forgetLogs, keepLogs } from "../kit/kept-logs.ts";
import { inNode, lab } from "../lab/index.ts";
import { runChanges, type RunChange } from "./verdict.ts";

const KEPT = "/var/lib/drover/chaos";
const EVERY_MS = 300;

const onAllNodes = async <T>(work: (node: string) => Promise<T>): Promise<(T | undefined)[]> =>
  // A node without power has no logs to give now; it has them again later.
  Promise.all(lab().nodes.map(({ name }) => work(name).catch(() => undefined)));

export const keepTraces = (uid: string): Promise<unknown> => onAllNodes((node) => keepLogs(node, uid, KEPT));

export const forgetTraces = (): Promise<unknown> => onAllNodes((node) => forgetLogs(node, KEPT));

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
