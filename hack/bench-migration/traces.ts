/** When a guest's QEMUs ran it, by their own account on the machine's one clock. */
import { pauses, runChanges } from "../chaos/verdict.ts";
import { inNode, lab } from "../lab/index.ts";

const MARK = "----- bench-migration: next file -----";

/** Files of all nodes that match a pattern of the shell; each is what one QEMU has said. */
export const readTraces = async (pattern: string): Promise<string[]> => {
  const script = `for f in ${pattern}; do [ -e "$f" ] && cat "$f" && echo && echo "${MARK}"; done; true`;
  const all = await Promise.all(lab().nodes.map(({ name }) => inNode(name, "sh", ["-c", script])));
  return all.flatMap((text) => text.split(MARK)).filter((text) => text.trim() !== "");
};

/**
 * When none of them ran it, the last time: since when (ms since 1970), for how long. Pure. A file is a QEMU: the number in its lines
 * is that of a thread.
 */
export const lastPause = (traces: readonly string[]): { from: number; ms: number } => {
  const changes = traces.flatMap((text, file) => runChanges(text, String(file)));
  const ms = pauses(changes).at(-1);
  if (ms === undefined) throw new Error(`the traces tell of no pause:\n${traces.join("\n")}`);
  const end = Math.max(...changes.filter(({ running }) => running).map(({ at }) => at));
  return { from: end - ms, ms };
};
