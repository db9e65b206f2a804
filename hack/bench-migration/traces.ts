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

/** How long none of them ran it, the last time. Pure. A file is a QEMU: the number in its lines is that of a thread. */
export const lastPause = (traces: readonly string[]): number => {
  const changes = traces.flatMap((text, file) => runChanges(text).map((one) => ({ ...one, qemu: String(file) })));
  const last = pauses(changes).at(-1);
  if (last === undefined) throw new Error(`the traces tell of no pause:\n${traces.join("\n")}`);
  return last;
};
