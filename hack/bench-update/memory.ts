/** What a guest's processes take of memory while one replaces the other. */
import { createInterface } from "node:readline";
import path from "node:path";
import { execa } from "execa";
import { lab } from "../lab/index.ts";
import { nodeNamed } from "../lab/identity.ts";
import { inNodeCommand } from "../lab/node/node.ts";

const SCRIPT = path.join(import.meta.dirname, "sample-memory.ts");

/** Bytes charged, page cache left out. */
export interface MemorySeen {
  before: number;
  peak: number;
  after: number;
}

/** Watches a cgroup's account; resolves once it does. `stop` gives what was seen. */
export const watchMemory = async (node: string, account: string): Promise<{ stop: () => Promise<MemorySeen> }> => {
  const [program = "", ...args] = await inNodeCommand(nodeNamed(lab(), node), [process.execPath, SCRIPT, account]);
  const sampler = execa(program, args, { stdin: "pipe", stderr: "pipe", buffer: { stdout: false }, reject: false });
  const lines = createInterface({ input: sampler.stdout })[Symbol.asyncIterator]();
  const failed = async (): Promise<never> => {
    const { stderr } = await sampler;
    throw new Error(`the account ${account} of ${node} cannot be read: ${stderr}`);
  };
  if ((await lines.next()).value !== "ready") await failed();
  return {
    stop: async () => {
      sampler.stdin.end();
      const last = await lines.next();
      if (last.done === true) return failed();
      await sampler;
      return JSON.parse(last.value) as MemorySeen;
    },
  };
};
