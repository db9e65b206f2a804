/** `node hack/lab/main.ts COMMAND`: the lab, from the command line. */
import { spawn } from "node:child_process";
import { buildGuest } from "../guest/build.ts";
import { ensureBinaries } from "./binaries.ts";
import { alone } from "./cluster.ts";
import { down } from "./down.ts";
import * as faults from "./faults.ts";
import { nodeNamed, thisLab, type Lab } from "./identity.ts";
import { ensureImages } from "./images.ts";
import { inNodeCommand } from "./node/node.ts";
import { bringOtherRuntime } from "./other-runtime.ts";
import { preflight } from "./preflight.ts";
import { makeProgress, type Progress } from "./progress.ts";
import { LabError } from "./run.ts";
import { status } from "./status.ts";
import { reload, up } from "./up.ts";

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

const isSet = (name: string): boolean => !["", "0"].includes(process.env[name] ?? "");

const commands: Record<string, Command> = {
  up: {
    usage: "up",
    about: "brings the lab up, or repairs it (DEV=1: pods run the working tree; BARE=1: without Drover)",
    run: (lab, _, progress) => up(lab, progress, { dev: isSet("DEV"), bare: isSet("BARE") }),
  },
  down: { usage: "down", about: "takes it away, all of it", run: (lab, _, progress) => alone(lab, () => down(lab, progress)) },
  reload: {
    usage: "reload",
    about: "brings changed code into the running Drover",
    run: (lab, _, progress) => reload(lab, progress),
  },
  status: {
    usage: "status",
    about: "what runs, and where to look",
    run: async (lab) => void process.stdout.write(`${(await status(lab)).join("\n")}\n`),
  },
  binaries: {
    usage: "binaries",
    about: "gets what is missing of Kubernetes, etcd and helm",
    run: async (lab, _, progress) => {
      await preflight(lab, progress, { running: true, bare: true });
      progress.note(await ensureBinaries(lab, progress));
    },
  },
  images: {
    usage: "images",
    about: "builds what is missing of Drover's images",
    run: async (lab, _, progress) => {
      const images = await ensureImages(lab, progress, "all");
      for (const image of images) progress.note(`${image.name} ${image.archive}`);
    },
  },
  "other-runtime": {
    usage: "other-runtime",
    about: "puts a runtime with another QEMU on the nodes, for the chart's image.runtime",
    run: async (lab, _, progress) => progress.note(await bringOtherRuntime(lab, progress)),
  },
  guest: {
    usage: "guest",
    about: "builds the guest's image",
    run: async (lab) => void process.stdout.write(`${JSON.stringify(await buildGuest(lab.cache), null, 2)}\n`),
  },
  "in-node": {
    usage: "in-node NODE COMMAND...",
    about: "runs a command inside a node",
    run: async (lab, args) => attach(await inNodeCommand(nodeNamed(lab, one(args, "in-node NODE COMMAND...")), args.slice(1))),
  },
  "power-cut": {
    usage: "power-cut NODE",
    about: "pulls a node's plug",
    run: (_, args) => faults.powerCut(one(args, "power-cut NODE")),
  },
  "power-on": {
    usage: "power-on NODE",
    about: "switches it on again",
    run: (_, args) => faults.powerOn(one(args, "power-on NODE"), { ready: true }),
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
