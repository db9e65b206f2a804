/** What tests, demo and bench use of the running lab. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { z } from "zod";
import { writeWhole } from "./files.ts";
import { imageDirectory, imageUrl } from "./guest-images.ts";
import { nodeNamed, thisLab, type Lab } from "./identity.ts";
import { inNode as runInNode } from "./node/node.ts";
import { LabError } from "./run.ts";

const recordSchema = z.object({
  binaries: z.string(),
  kubectl: z.string(),
  helm: z.string(),
  /** Files put here are served at `imageUrl`. */
  imageDirectory: z.string(),
  imageUrl: z.string(),
  /** Whether the pods run the working tree's code. */
  dev: z.boolean(),
});

export type RunningLab = Lab & z.infer<typeof recordSchema>;

const recordFile = (lab: Lab): string => join(lab.out, "lab.json");

/** Leaves word of a lab that is up, for `lab()`. */
export const recordLab = (lab: Lab, binaries: string, dev: boolean): Promise<void> => {
  const record: z.infer<typeof recordSchema> = {
    binaries,
    kubectl: join(binaries, "kubectl"),
    helm: join(binaries, "helm"),
    imageDirectory: imageDirectory(lab),
    imageUrl: imageUrl(lab),
    dev,
  };
  return writeWhole(recordFile(lab), `${JSON.stringify(record, null, 2)}\n`);
};

/** The lab of this checkout, which must be up. Throws a sentence when it is not. */
export const lab = (): RunningLab => {
  const described = thisLab();
  try {
    return { ...described, ...recordSchema.parse(JSON.parse(readFileSync(recordFile(described), "utf8"))) };
  } catch (cause) {
    throw new LabError('the lab is not up: run "make lab"', { cause });
  }
};

/** Runs a program inside a node (its namespaces, its cgroup) and gives what it printed. */
export const inNode = (
  node: string,
  command: string,
  args: string[] = [],
  options: { deadlineMs?: number; input?: string } = {},
): Promise<string> => runInNode(nodeNamed(thisLab(), node), [command, ...args], options);
