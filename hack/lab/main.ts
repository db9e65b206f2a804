/** `node hack/lab/main.ts COMMAND`: the lab, from the command line. */
import { spawn } from "node:child_process";
import { alone, ensureCluster } from "./cluster.ts";
import { down } from "./down.ts";
import { nodeNamed, thisLab, type Lab } from "./identity.ts";
import { recordLab } from "./index.ts";
import { inNodeCommand } from "./node/node.ts";
import { makeProgress, type Progress } from "./progress.ts";
import { LabError } from "./run.ts";

interface Command {
  usage: string;
  about: string;
  run(lab: Lab, args: string[], progress: Progress): Promise<void>;
}

const one = (args: string[], usage: string): string => {
  const [name] = args;
  if (name === undefined) throw new LabError(`usage: node hack/lab/main.ts ${usage}`);
  return name;
};

/** Runs a command with this terminal; ends with its exit code. */
const attach = async (command: string[]): Promise<void> => {
  const [program = "", ...args] = command;
  process.exitCode = await new Promise<number>((resolve, reject) => {
    const child = spawn(program, args, { stdio: "inherit" });
    child.once("error", reject);
    child.once("exit", (code, signal) => resolve(code ?? (signal === null ? 0 : 128)));
  });
};

const commands: Record<string, Command> = {
  up: {
    usage: "up",
    about: "brings the lab up, or repairs it",
    run: (lab, _, progress) =>
      alone(lab, async () => {
        const { binaries } = await ensureCluster(lab, progress, process.env["IMAGES"] !== "0");
        await recordLab(lab, binaries);
        progress.note(`ready: export KUBECONFIG=${lab.kubeconfig}`);
      }),
  },
  down: { usage: "down", about: "takes it away, all of it", run: (lab, _, progress) => alone(lab, () => down(lab, progress)) },
  "in-node": {
    usage: "in-node NODE COMMAND...",
    about: "runs a command inside a node",
    run: async (lab, args) => attach(await inNodeCommand(nodeNamed(lab, one(args, "in-node NODE COMMAND...")), args.slice(1))),
  },
};

const main = async (): Promise<void> => {
  const [name = "", ...args] = process.argv.slice(2);
  const command = commands[name];
  if (!command) {
    const lines = Object.values(commands).map(({ usage, about }) => `  ${usage.padEnd(36)} ${about}`);
    throw new LabError(`usage: node hack/lab/main.ts COMMAND\n${lines.join("\n")}`);
  }
  await command.run(thisLab(), args, makeProgress());
};

try {
  await main();
} catch (error) {
  if (!(error instanceof LabError)) throw error;
  for (let cause: unknown = error; cause instanceof LabError; cause = cause.cause) process.stderr.write(`${cause.message}\n`);
  process.exitCode = 1;
}
