/** A root directory with programs and nothing else, for a program that reads what strangers wrote. */
import { chmod, mkdir, mkdtemp, readlink, rmdir, symlink, unlink } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { errorCode } from "../errors.ts";
import { here } from "../pool/here.ts";

/** Links of the root directory into /usr, where they are links. */
const LINKS = ["bin", "sbin", "lib", "lib64"];
const DEADLINE_MS = 10_000;

/**
 * Runs `work` with a directory that shows /usr, read-only, and a /proc of the own processes: no token, no key, no pool. The
 * mounts are those of the agent's own pod, and are gone after it. Nothing is ever removed recursively here.
 */
export async function withSandbox<T>(work: (root: string) => Promise<T>): Promise<T> {
  const root = await mkdtemp(join(tmpdir(), "drover-convert-"));
  const usr = join(root, "usr");
  const proc = join(root, "proc");
  const undo: (() => Promise<unknown>)[] = [() => rmdir(root)];
  try {
    await chmod(root, 0o755);
    for (const directory of [usr, proc]) {
      await mkdir(directory);
      undo.push(() => rmdir(directory));
    }
    for (const name of LINKS) {
      const target = await linkOf(`/${name}`);
      if (target === undefined) continue;
      await symlink(target, join(root, name));
      undo.push(() => unlink(join(root, name)));
    }
    await mount("-o", "bind,ro,nosuid,nodev", "/usr", usr);
    undo.push(() => here("umount", [usr], { deadlineMs: DEADLINE_MS }));
    await mount("-t", "proc", "-o", "nosuid,nodev,noexec,hidepid=2", "proc", proc);
    undo.push(() => here("umount", [proc], { deadlineMs: DEADLINE_MS }));
    return await work(root);
  } finally {
    for (const step of undo.reverse()) await step();
  }
}

async function mount(...args: string[]): Promise<void> {
  await here("mount", args, { deadlineMs: DEADLINE_MS });
}

async function linkOf(path: string): Promise<string | undefined> {
  try {
    return await readlink(path);
  } catch (error) {
    if (errorCode(error) === "ENOENT" || errorCode(error) === "EINVAL") return undefined;
    throw error;
  }
}
