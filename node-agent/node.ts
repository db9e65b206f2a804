/** The node itself, seen from the agent's pod: its programs by nsenter, its files at the same paths as in the pod. */
import { join } from "node:path";
import { execa } from "execa";
import { CommandError } from "./errors.ts";
import type { ExecResult } from "./types.ts";

/** A process that lives in the node's own mount namespace: with hostPID that is the node's init. */
export const nodePid = (): number => Number(process.env["DROVER_NODE_PID"] ?? 1);

export interface OnNodeOptions {
  /** After this the program is killed and the call fails. Default: 30 s. */
  deadlineMs?: number;
  input?: string;
  signal?: AbortSignal;
  /** Exit codes that are an answer and not a failure. Default: 0 only. */
  okCodes?: readonly number[];
}

const OUTPUT_LIMIT = 4 * 1024 * 1024;

/**
 * Runs a program of the node in the node's mount namespace and waits for its end.
 * Throws CommandError with the program's own words when it fails, does not exist or passes its deadline.
 */
export async function onNode(command: string, args: readonly string[], options: OnNodeOptions = {}): Promise<ExecResult> {
  const { deadlineMs = 30_000, okCodes = [0] } = options;
  const result = await execa("nsenter", ["-t", String(nodePid()), "-m", "--", command, ...args], {
    reject: false,
    timeout: deadlineMs,
    killSignal: "SIGKILL",
    maxBuffer: OUTPUT_LIMIT,
    stdin: options.input === undefined ? "ignore" : "pipe",
    ...(options.input === undefined ? {} : { input: options.input }),
    ...(options.signal === undefined ? {} : { cancelSignal: options.signal }),
  });
  if (result.exitCode !== undefined && okCodes.includes(result.exitCode)) {
    return { stdout: result.stdout, stderr: result.stderr, exitCode: result.exitCode };
  }
  throw new CommandError(
    {
      command: [command, ...args].join(" "),
      ...(result.exitCode === undefined ? {} : { exitCode: result.exitCode }),
      timedOut: result.timedOut,
      stderr: result.stderr,
      message: failure(command, result, deadlineMs),
    },
    result instanceof Error ? { cause: result } : undefined,
  );
}

function failure(
  command: string,
  result: { timedOut: boolean; isCanceled: boolean; exitCode?: number; signal?: string; stderr: string },
  deadlineMs: number,
): string {
  if (result.timedOut) return `${command} did not finish within ${deadlineMs} ms`;
  if (result.isCanceled) return `${command} was cancelled`;
  const words = result.stderr.trim().split("\n").slice(-5).join("; ").slice(0, 2000);
  const how = result.exitCode === undefined ? `ended by ${result.signal ?? "an unknown cause"}` : `exit code ${result.exitCode}`;
  return words === "" ? `${command}: ${how}` : `${command}: ${words} (${how})`;
}

/** Drover's paths on a node: the same in the agent's pod, where they are mounted at the same place. */
export function nodePaths(root: string) {
  return {
    root,
    runtimes: join(root, "runtime"),
    runtime: (version: string) => join(root, "runtime", version),
    instances: join(root, "instances"),
    instance: (instanceUid: string) => join(root, "instances", instanceUid),
    instanceVm: (instanceUid: string) => join(root, "instances", instanceUid, "vm"),
    loops: join(root, "loops"),
    loop: (pool: string) => join(root, "loops", `${pool}.img`),
    pools: join(root, "pools"),
    pool: (pool: string) => join(root, "pools", pool),
    volumes: (pool: string, instanceUid: string) => join(root, "pools", pool, "volumes", instanceUid),
    image: (pool: string, sha256: string) => join(root, "pools", pool, "images", `${sha256}.raw`),
    images: join(root, "images"),
    ovs: join(root, "ovs"),
  };
}

export type NodePaths = ReturnType<typeof nodePaths>;

export const paths: NodePaths = nodePaths(process.env["DROVER_ROOT"] ?? "/var/lib/drover");
