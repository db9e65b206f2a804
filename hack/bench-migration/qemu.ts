/** QEMUs that this bench starts on nodes, and their monitors. */
import { rm } from "node:fs/promises";
import { createServer, type Socket } from "node:net";
import { join } from "node:path";
import { execa } from "execa";
import { QmpSession, type QmpEvent } from "../../node-agent/instance/qemu/qmp/session.ts";
import { lab } from "../lab/index.ts";
import { nodeNamed } from "../lab/identity.ts";
import { initOf, inNodeCommand } from "../lab/node/node.ts";

const START_MS = 20_000;
const EVENT_MS = 300_000;
const script = join(import.meta.dirname, "qemu.sh");

/** A path of a node as this machine sees it. */
export const rooted = async (node: string, path: string): Promise<string> =>
  `/proc/${await initOf(nodeNamed(lab(), node))}/root${path}`;

export interface Launch {
  node: string;
  /** Of the node; see qemu.sh. */
  runtime: string;
  disk: string;
  home: string;
  /** Name of the socket in `home` that QEMU connects to; with .log that of the file of what it says. */
  monitor: string;
  args: readonly string[];
  /** A program and its arguments that becomes the command it is given, run on the node. */
  by?: readonly string[];
}

/** A QEMU and its monitor. */
export class Machine {
  readonly node: string;
  readonly qmp: QmpSession;
  /** Resolves when the process has ended. */
  readonly ended: Promise<unknown>;
  #events: QmpEvent[] = [];
  readonly #looking = new Set<() => void>();

  constructor(node: string, qmp: QmpSession, ended: Promise<unknown>) {
    this.node = node;
    this.qmp = qmp;
    this.ended = ended;
    qmp.onEvent((event) => {
      if (event.name === "MIGRATION_PASS") return;
      this.#events.push(event);
      for (const look of this.#looking) look();
    });
  }

  /** Earlier events count no more. */
  forget(): void {
    this.#events = [];
  }

  /** The first event that is the one, of those not forgotten. */
  seen(isIt: (event: QmpEvent) => boolean, what: string): Promise<QmpEvent> {
    return new Promise((resolve, reject) => {
      const late = (): void => {
        this.#looking.delete(look);
        const names = this.#events.map(({ name, data }) => `${name} ${JSON.stringify(data)}`).join(", ");
        reject(new Error(`QEMU on ${this.node}: ${what} not within ${EVENT_MS / 1000} s; there was: ${names}`));
      };
      const timer = setTimeout(late, EVENT_MS);
      const look = (): void => {
        const found = this.#events.find(isIt);
        if (found === undefined) return;
        clearTimeout(timer);
        this.#looking.delete(look);
        resolve(found);
      };
      this.#looking.add(look);
      look();
    });
  }

  /** What QEMU says of the migration; throws its words when that failed meanwhile. */
  async migrated(status: string): Promise<void> {
    const isEnd = (one: string): boolean => one === status || one === "failed" || one === "cancelled";
    const { data } = await this.seen(({ name, data: { status: is } }) => name === "MIGRATION" && isEnd(String(is)), status);
    if (data["status"] === status) return;
    throw new Error(`QEMU on ${this.node} says ${JSON.stringify(await this.qmp.execute("query-migrate"))}`);
  }

  async quit(): Promise<void> {
    await this.qmp.execute("quit").catch(() => undefined);
    await this.ended;
  }
}

/** Starts it and resolves when its monitor answers; throws with its words when it does not. */
export const startQemu = async ({ node, runtime, disk, home, monitor, args, by = [] }: Launch): Promise<Machine> => {
  const [program = "", ...rest] = await inNodeCommand(nodeNamed(lab(), node), [
    ...by,
    "sh",
    script,
    runtime,
    disk,
    home,
    `${monitor}.log`,
    ...args,
  ]);
  const socket = await rooted(node, join(home, monitor));
  await rm(socket, { force: true });
  const connected = Promise.withResolvers<Socket>();
  const server = createServer((stream) => connected.resolve(stream));
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.listen(socket, resolve);
  });
  const late = setTimeout(() => connected.reject(new Error("its monitor does not answer")), START_MS);
  const process = execa(program, rest, { stdin: "ignore", reject: false, cleanup: true });
  void process.then(({ stderr, exitCode }) => connected.reject(new Error(`it ended with ${exitCode}: ${stderr}`)));
  try {
    const qmp = await QmpSession.over(await connected.promise, { deadlineMs: 60_000 });
    return new Machine(node, qmp, process);
  } catch (cause) {
    process.kill("SIGKILL");
    throw new Error(`QEMU does not start on ${node}; its words are in ${home}/${monitor}.log`, { cause });
  } finally {
    clearTimeout(late);
    server.close();
  }
};
