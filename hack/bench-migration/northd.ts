/** ovn-northd, stopped for a while at a chosen moment. */
import { execa } from "execa";
import { lab } from "../lab/index.ts";
import { nodeNamed } from "../lab/identity.ts";
import { inNodeCommand } from "../lab/node/node.ts";
import { processNamed } from "./network.ts";

const FROZEN_MS = 4_000;

export interface Freezer {
  /** Stops it now, for 4 s; once only until it goes on. */
  freeze(): void;
  /** Resolves when it runs again, at once when it was not stopped. Throws when that did not go as it should. */
  thawed(): Promise<void>;
  close(): Promise<void>;
}

/** A shell in northd's node waits for orders: a signal is then sent within a millisecond. */
export const makeFreezer = async (): Promise<Freezer> => {
  const all = lab().nodes.map(({ name }) => name);
  const { node, pid } = await processNamed(all, "ovn-northd");
  const [program = "", ...args] = await inNodeCommand(nodeNamed(lab(), node), ["sh", "-e"]);
  const shell = execa(program, args, { stdin: "pipe", reject: false });
  let ended = false;
  void shell.then(() => (ended = true));
  const order = (signal: "STOP" | "CONT"): void => void shell.stdin.write(`kill -${signal} ${pid}\n`);
  let thaw: Promise<void> | undefined;
  return {
    freeze: () => {
      if (thaw !== undefined) return;
      order("STOP");
      thaw = new Promise((resolve) => {
        setTimeout(() => {
          order("CONT");
          resolve();
        }, FROZEN_MS);
      });
    },
    thawed: async () => {
      await thaw;
      thaw = undefined;
      if (ended) throw new Error(`ovn-northd on ${node} cannot be stopped`);
    },
    close: async () => {
      await thaw;
      shell.stdin.end();
      const { exitCode, stderr } = await shell;
      if (exitCode !== 0) throw new Error(`ovn-northd on ${node} could not be stopped: ${stderr}`);
    },
  };
};
