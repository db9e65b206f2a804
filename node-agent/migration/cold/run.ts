/** Runs a confined program with open files, and its key in a directory whose files only it can read. */
import { spawn } from "node:child_process";
import { chown, mkdir, open, rm, rmdir, writeFile, type FileHandle } from "node:fs/promises";
import { constants } from "node:fs";
import { join } from "node:path";
import { withSandbox } from "../../image/sandbox.ts";
import { keyFiles } from "../../instance/move-key.ts";
import type { MoveSecret } from "../../instance/move.ts";
import type { GuestIdentity } from "../../types.ts";
import { confined, KEY_DIRECTORY } from "./programs.ts";

export interface Confined {
  program: readonly string[];
  /** Opened for it in this order; they belong to its user. */
  files: readonly { path: string; write: boolean }[];
  user: GuestIdentity;
  /** No file may become larger. */
  largestBytes: number;
  secret: MoveSecret | undefined;
  onOutput: (text: string) => void;
  /** Ends it. */
  signal: AbortSignal;
}

/** Resolves with its words when it ended well or was ended by the signal. Throws with them when it failed. */
export async function runConfined(what: Confined): Promise<void> {
  const handles: FileHandle[] = [];
  try {
    for (const { path, write } of what.files)
      handles.push(await open(path, (write ? constants.O_RDWR : constants.O_RDONLY) | constants.O_NOFOLLOW));
    await withSandbox((root) => withKey(root, what, () => run(root, what, handles)));
  } finally {
    for (const handle of handles) await handle.close();
  }
}

async function withKey(root: string, { secret, user }: Confined, work: () => Promise<void>): Promise<void> {
  if (secret === undefined) return work();
  const directory = join(root, KEY_DIRECTORY);
  const files = keyFiles(secret).map(({ name, content }) => ({ file: join(directory, name), content }));
  await mkdir(directory, { mode: 0o711 });
  try {
    for (const { file, content } of files) {
      await writeFile(file, content, { mode: 0o400, flag: "wx" });
      await chown(file, user.uid, user.gid);
    }
    await work();
  } finally {
    for (const { file } of files) await rm(file, { force: true });
    await rmdir(directory);
  }
}

function run(root: string, what: Confined, handles: readonly FileHandle[]): Promise<void> {
  const { program, user, largestBytes, onOutput, signal } = what;
  const [command, args] = confined(root, user, largestBytes, program);
  return new Promise((resolve, reject) => {
    if (signal.aborted) return resolve();
    const child = spawn(command, args, {
      // Its input stays open: a monitor that meets the end of it would be none any more.
      stdio: ["pipe", "pipe", "pipe", ...handles.map(({ fd }) => fd)],
      env: { PATH: "/usr/sbin:/usr/bin:/sbin:/bin", LC_ALL: "C" },
      cwd: "/",
    });
    const end = (): void => void child.kill("SIGKILL");
    signal.addEventListener("abort", end, { once: true });
    let stderr = "";
    child.stderr?.setEncoding("utf8").on("data", (text: string) => {
      stderr = (stderr + text).slice(-4_096);
    });
    child.stdout?.setEncoding("utf8").on("data", onOutput);
    child.stdin?.on("error", () => undefined); // it has ended, and says so by its end
    child.once("error", (error) => {
      signal.removeEventListener("abort", end);
      if (child.pid === undefined) reject(error);
    });
    child.once("close", (code, by) => {
      signal.removeEventListener("abort", end);
      if (code === 0 || signal.aborted) resolve();
      else reject(new Error(words(program[0] ?? "", stderr, code, by)));
    });
  });
}

function words(name: string, stderr: string, code: number | null, by: string | null): string {
  const said = stderr
    .trim()
    .split("\n")
    .slice(-3)
    .join("; ")
    .replaceAll(/\/proc\/self\/fd\/\d+/g, "the disk");
  return said.slice(0, 500) || `${name} ended by ${by ?? `exit code ${code}`}`;
}
