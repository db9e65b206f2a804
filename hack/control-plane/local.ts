/** A control plane for a test: on the loopback, in a directory of its own, ended with everything it left when the test ends. */
import { mkdtemp, rm } from "node:fs/promises";
import { createServer, type AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import path from "node:path";
import { execa, type ResultPromise } from "execa";
import { startControlPlane, type ControlPlane, type ControlPlaneOptions, type Started } from "./index.ts";
import type { ComponentName, Ports } from "./types.ts";

export interface LocalControlPlane extends ControlPlane {
  directory: string;
  /** Sends a signal; with SIGSTOP and SIGCONT it freezes and thaws. */
  signal(name: ComponentName, signal: NodeJS.Signals): void;
  /** Kills one at once and waits until it is gone. */
  kill(name: ComponentName): Promise<void>;
  /** Ends everything and removes the directory. May be repeated. */
  stop(): Promise<void>;
}

type LocalOptions = Omit<ControlPlaneOptions, "launch" | "address" | "ports" | "directory"> & {
  /** Others than free ones. */
  ports?: Partial<Ports>;
};

/** Starts one; when that fails nothing is left running. */
export const startLocalControlPlane = async (options: LocalOptions = {}): Promise<LocalControlPlane> => {
  const directory = await mkdtemp(path.join(tmpdir(), "drover-control-plane-"));
  const running = new Map<string, { pid: number; process: ResultPromise }>();
  const stop = async (): Promise<void> => {
    await Promise.all([...running.keys()].map((name) => end(name)));
    await rm(directory, { recursive: true, force: true });
  };
  const end = async (name: string): Promise<void> => {
    const one = running.get(name);
    if (!one) return;
    one.process.kill("SIGKILL");
    // It rejects because it was killed; what counts is that it has ended.
    await one.process.then(
      () => undefined,
      () => undefined,
    );
    running.delete(name);
  };
  const launch: ControlPlaneOptions["launch"] = async (name, command, args, logFile) => {
    const output = { file: logFile, append: true } as const;
    // Ends with us, whatever ends us: a test that is interrupted or killed leaves nothing.
    const child = execa("setpriv", ["--pdeathsig", "KILL", command, ...args], {
      stdin: "ignore",
      stdout: output,
      stderr: output,
      buffer: false,
      cleanup: true,
    });
    child.catch(() => undefined);
    if (child.pid === undefined) {
      await child;
      throw new Error(`${command} could not be started`);
    }
    running.set(name, { pid: child.pid, process: child });
    return { pid: child.pid };
  };
  try {
    const plane = await startControlPlane({
      ...options,
      launch,
      address: "127.0.0.1",
      ports: { ...(await freePorts()), ...options.ports },
      directory,
    });
    return {
      ...plane,
      directory,
      stop,
      kill: end,
      signal: (name, signal) => {
        const one: Started | undefined = plane.started[name];
        if (one) process.kill(one.pid, signal);
      },
    };
  } catch (error) {
    await stop();
    throw error;
  }
};

/** Ports that nobody uses now. All are held while the others are looked for, so that no two are the same. */
export const freePorts = async (): Promise<Ports> => {
  const servers = await Promise.all(Array.from({ length: 5 }, holdPort));
  const [etcdClient = 0, etcdPeer = 0, apiserver = 0, controllerManager = 0, scheduler = 0] = servers.map(({ port }) => port);
  await Promise.all(servers.map(({ release }) => release()));
  return { etcdClient, etcdPeer, apiserver, controllerManager, scheduler };
};

const holdPort = (): Promise<{ port: number; release: () => Promise<void> }> =>
  new Promise((resolve, reject) => {
    const server = createServer();
    server.once("error", reject);
    server.listen(0, "127.0.0.1", () => {
      const release = (): Promise<void> => new Promise((done) => void server.close(() => done()));
      resolve({ port: (server.address() as AddressInfo).port, release });
    });
  });
