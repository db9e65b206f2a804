/** One daemon of the switch: found by what is written of it and by what really runs, started, watched, ended. */
import { readFile, rename, rm, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import { errorCode, UserError } from "../errors.ts";
import { argumentsOf, endProcess, executableOf, goneWithin, processNow, type ProcessId } from "./process.ts";
import { startDaemon } from "./spawn.ts";
import { commandOf, versionOfExecutable, type OvsTree } from "./tree.ts";
import { control, watchEnd, whenListening } from "./unixctl.ts";

const recordShape = z.object({ pid: z.int().positive(), start: z.string(), version: z.string() });

export interface DaemonFiles {
  runtimes: string;
  runDir: string;
  logDir: string;
  cgroup: string;
}

export interface Running {
  id: ProcessId;
  version: string;
}

const START_MS = 15_000;
const STOP_MS = 5_000;
const CONNECT_MS = 2_000;
const GONE_MS = 10_000;
const LOG_LIMIT = 16 * 1024 * 1024;

export class Daemon {
  readonly name: "ovsdb-server" | "ovs-vswitchd";
  readonly socket: string;
  readonly logFile: string;
  readonly #files: DaemonFiles;
  #unwatch: (() => void) | undefined;
  #watched: ProcessId | undefined;

  constructor(name: "ovsdb-server" | "ovs-vswitchd", files: DaemonFiles) {
    this.name = name;
    this.#files = files;
    this.socket = join(files.runDir, `${name}.ctl`);
    this.logFile = join(files.logDir, `${name}.log`);
  }

  get #pidFile(): string {
    return join(this.#files.runDir, `${this.name}.pid`);
  }

  get #record(): string {
    return join(this.#files.runDir, `drover-${this.name}.json`);
  }

  /** Arguments that every start has. */
  options(): string[] {
    return [
      `--unixctl=${this.socket}`,
      `--pidfile=${this.#pidFile}`,
      `--log-file=${this.logFile}`,
      "-vconsole:off",
      "-vsyslog:off",
    ];
  }

  /**
   * The process that runs now: the one written down at its start, else the one of the pid file if it is from our runtime.
   * A process from elsewhere is told as `stranger`.
   */
  async find(): Promise<{ running?: Running; stranger?: string }> {
    for (const pid of [await this.#recordedPid(), await this.#pidInFile()]) {
      if (pid === undefined) continue;
      const id = await processNow(pid);
      const [executable, args] = [await executableOf(pid), await argumentsOf(pid)];
      if (id === undefined || executable === undefined || !args.some((arg) => arg.endsWith(`/${this.name}`))) continue;
      const version = versionOfExecutable(this.#files.runtimes, executable);
      if (version !== undefined) return { running: { id, version } };
      return { stranger: `process ${pid} (${args.join(" ").slice(0, 120)})` };
    }
    return {};
  }

  /** Starts it and resolves when it answers. Throws UserError with what it printed when it ends instead. */
  async start(tree: OvsTree, program: string, args: readonly string[], signal: AbortSignal): Promise<Running> {
    // What a dead daemon left would be taken for a living one.
    await rm(this.socket, { force: true });
    const output = `${this.logFile}.start`;
    const { id, ended } = await startDaemon({
      command: commandOf(tree, program, args),
      shell: commandOf(tree, tree.shell, []),
      env: {
        PATH: process.env["PATH"] ?? "/usr/sbin:/usr/bin:/sbin:/bin",
        LC_ALL: "C.UTF-8",
        OVS_RUNDIR: this.#files.runDir,
        OVS_LOGDIR: this.#files.logDir,
        OPENSSL_CONF: "/dev/null",
      },
      logFile: output,
      cgroup: this.#files.cgroup,
      announce: (started) => this.#announce({ ...started, version: tree.version }),
    });
    const gaveUp = new AbortController();
    const outcome = await Promise.race([
      whenListening(this.socket, START_MS, AbortSignal.any([signal, gaveUp.signal])).then(() => undefined),
      ended,
    ]).finally(() => gaveUp.abort());
    if (outcome === undefined) return { id, version: tree.version };
    const words = (await readFile(output, "utf8").catch(() => "")).trim().split("\n").slice(-5).join("; ").slice(0, 1000);
    throw new UserError("SwitchDown", `${this.name} ${tree.version} did not start: ${words || outcome}`);
  }

  /** Ends it; resolves when it is gone. */
  async stop(): Promise<void> {
    this.unwatch();
    const { running } = await this.find();
    if (running !== undefined) await endProcess(running.id, STOP_MS);
  }

  /** Calls `onEnd` once when this process ends; a second call for the same process changes nothing. */
  async watch(running: Running, onEnd: () => void): Promise<void> {
    if (this.#watched?.pid === running.id.pid && this.#watched.start === running.id.start) return;
    this.unwatch();
    this.#unwatch = await watchEnd(this.socket, CONNECT_MS, () => {
      this.unwatch();
      // Its socket is closed first; its interfaces and locks may take longer.
      void goneWithin(running.id, GONE_MS).then(onEnd, onEnd);
    });
    this.#watched = running.id;
  }

  unwatch(): void {
    this.#unwatch?.();
    this.#unwatch = undefined;
    this.#watched = undefined;
  }

  /** Asks it for a sign of life. Throws when it does not answer. */
  async ping(): Promise<void> {
    await control(this.socket, "version", [], 5_000);
  }

  /** Keeps its log within bounds: one old file beside the new one. */
  async rotateLog(): Promise<void> {
    const size = await stat(this.logFile).then(
      (info) => info.size,
      () => 0,
    );
    if (size < LOG_LIMIT) return;
    await rename(this.logFile, `${this.logFile}.1`);
    await control(this.socket, "vlog/reopen", [], 5_000);
  }

  async #announce(record: z.infer<typeof recordShape>): Promise<void> {
    const temporary = `${this.#record}.new`;
    await writeFile(temporary, JSON.stringify(record), { mode: 0o600 });
    await rename(temporary, this.#record);
  }

  async #recordedPid(): Promise<number | undefined> {
    const text = await readIfThere(this.#record);
    if (text === undefined) return undefined;
    const record = recordShape.safeParse(parseJson(text));
    if (!record.success) return undefined;
    const now = await processNow(record.data.pid);
    return now?.start === record.data.start ? now.pid : undefined;
  }

  async #pidInFile(): Promise<number | undefined> {
    const pid = Number((await readIfThere(this.#pidFile))?.trim());
    return Number.isInteger(pid) && pid > 1 ? pid : undefined;
  }
}

async function readIfThere(file: string): Promise<string | undefined> {
  try {
    return await readFile(file, "utf8");
  } catch (error) {
    if (errorCode(error) === "ENOENT") return undefined;
    throw error;
  }
}

/** Undefined for half a file. */
function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    if (error instanceof SyntaxError) return undefined;
    throw error;
  }
}
