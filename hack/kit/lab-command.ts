/** The lab's own command line, run for a demo or a bench that brings the lab up by itself. */
import path from "node:path";
import { execa } from "execa";

const root = path.resolve(import.meta.dirname, "../..");

/** Runs `hack/lab/main.ts VERB` with its output shown as it comes; rejects when it fails, or after 50 minutes. */
export const labCommand = (verb: string) =>
  execa("node", ["hack/lab/main.ts", verb], {
    cwd: root,
    preferLocal: true,
    localDir: root,
    stdin: "ignore",
    stdout: "inherit",
    stderr: "inherit",
    timeout: 50 * 60_000,
  });
