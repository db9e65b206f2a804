/** qcow2 to raw by qemu-img, which sees two open files and nothing else of value. */
import { spawn } from "node:child_process";
import { constants } from "node:fs";
import { open } from "node:fs/promises";
import { inheritedImage } from "./inherited.ts";
import { withSandbox } from "./sandbox.ts";

/** Nobody's identity: no other process of a node has it, and no file but the one being written. */
const CONVERTER_UID = 2_099_999_999;
const MIB = 1024 ** 2;
/** Bytes per ms of the slowest storage that is worth using. */
const SLOWEST = 10_000;

export interface Conversion {
  source: string;
  /** An empty file that root has made; after success a raw disk of the virtual size. */
  target: string;
  virtualSizeBytes: number;
  signal: AbortSignal;
}

/** qemu-img's command line. */
export function convertCommand(virtualSizeBytes: number, root: string): [command: string, args: string[]] {
  const limits = [`--as=${2048 * MIB}`, `--fsize=${virtualSizeBytes + MIB}`, "--nofile=64", "--core=0", "--cpu=7200"];
  const identity = [
    `--reuid=${CONVERTER_UID}`,
    `--regid=${CONVERTER_UID}`,
    "--clear-groups",
    "--inh-caps=-all",
    "--bounding-set=-all",
    "--no-new-privs",
  ];
  const files = ["--image-opts", inheritedImage("qcow2", 0), "--target-image-opts", inheritedImage("raw", 1)];
  const convert = ["qemu-img", "convert", "-q", "-n", "--target-is-zero", ...files];
  return [
    "unshare",
    [
      "--net",
      "--ipc",
      `--root=${root}`,
      "--",
      "nice",
      "-n",
      "10",
      "prlimit",
      ...limits,
      "--",
      "setpriv",
      ...identity,
      "--",
      ...convert,
    ],
  ];
}

/**
 * Fills the target from a qcow2 file whose header was checked before. The source is read as it is: no backing file, no
 * other file by any name can be opened, there is no network, nothing of the agent's to be read, and time, memory and file
 * size are limited.
 * Throws with qemu-img's own words.
 */
export async function convertQcow2({ source, target, virtualSizeBytes, signal }: Conversion): Promise<void> {
  const from = await open(source, constants.O_RDONLY | constants.O_NOFOLLOW);
  const to = await open(target, constants.O_RDWR | constants.O_NOFOLLOW);
  try {
    // Opened again through its descriptor: the file must be readable, its directory need not be.
    await from.chmod(0o444);
    await to.truncate(virtualSizeBytes);
    await to.chown(CONVERTER_UID, CONVERTER_UID);
    const deadlineMs = 60_000 + Math.ceil(virtualSizeBytes / SLOWEST);
    const result = await withSandbox((root) => {
      const [command, args] = convertCommand(virtualSizeBytes, root);
      return runWithFiles(command, args, [from.fd, to.fd], { deadlineMs, signal });
    });
    signal.throwIfAborted();
    if (result.exitCode !== 0) throw new Error(words(result));
    await to.sync();
  } finally {
    await to.chown(0, 0);
    await from.chmod(0o600);
    await from.close();
    await to.close();
  }
}

interface Ended {
  exitCode: number | null;
  killedBy: string | null;
  timedOut: boolean;
  stderr: string;
}

/** Runs a program with open files as its descriptors 3 and up; execa hands on no descriptors of ours but the first three. */
function runWithFiles(
  command: string,
  args: string[],
  files: number[],
  options: { deadlineMs: number; signal: AbortSignal },
): Promise<Ended> {
  return new Promise((resolve, reject) => {
    const env = { PATH: process.env["PATH"] ?? "/usr/sbin:/usr/bin:/sbin:/bin", LC_ALL: "C" };
    const child = spawn(command, args, {
      stdio: ["ignore", "ignore", "pipe", ...files],
      env,
      cwd: "/",
      killSignal: "SIGKILL",
      signal: options.signal,
    });
    let timedOut = false;
    const timer = setTimeout(() => {
      timedOut = true;
      child.kill("SIGKILL");
    }, options.deadlineMs);
    let stderr = "";
    child.stderr?.setEncoding("utf8").on("data", (text: string) => {
      stderr = (stderr + text).slice(-4096);
    });
    let failed: Error | undefined;
    child.on("error", (error) => {
      failed = error;
      // A program that could not be started has no end to wait for.
      if (child.pid === undefined) finish(null, null);
    });
    child.on("close", finish);
    function finish(exitCode: number | null, killedBy: string | null): void {
      clearTimeout(timer);
      if (failed && !options.signal.aborted) reject(failed);
      else resolve({ exitCode, killedBy, timedOut, stderr });
    }
  });
}

function words({ timedOut, stderr, exitCode, killedBy }: Ended): string {
  if (timedOut) return "qemu-img did not finish in time";
  const said = stderr
    .trim()
    .split("\n")
    .slice(-3)
    .join("; ")
    .replaceAll(/\/proc\/self\/fd\/\d/g, "the file");
  return said.slice(0, 500) || `qemu-img ended by ${killedBy ?? `exit code ${exitCode}`}`;
}
