/** A real ovsdb-server in a directory of its own, for tests: unix, tcp and ssl, stopped and started at will. */
import { existsSync } from "node:fs";
import { mkdtemp, readFile, rm, watch } from "node:fs/promises";
import { createServer } from "node:net";
import { networkInterfaces, tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { execa, type ResultPromise } from "execa";
import type { TlsFiles } from "../../ovsdb/index.ts";

/** Fails with what to install, rather than skip, when a program is missing. */
export const needPrograms = async (...programs: string[]): Promise<void> => {
  for (const program of programs) {
    const found = await execa(program, ["--version"], { reject: false, timeout: 10_000 });
    if (found.failed) {
      throw new Error(
        `${program} does not run; these tests need: apt-get install openvswitch-common ovn-common ovn-central openssl`,
        {
          cause: found,
        },
      );
    }
  }
};

export const makeDirectory = async (): Promise<string> => mkdtemp(join(tmpdir(), "drover-ovsdb-"));

/** An address of this machine that others could reach: API objects may not name loopback ones. */
export const ownAddress = (): string => {
  const all = Object.values(networkInterfaces()).flat();
  const found = all.find(
    (one) => one !== undefined && one.family === "IPv4" && !one.internal && !one.address.startsWith("169.254."),
  );
  if (!found) throw new Error("this machine has no IPv4 address but loopback; these tests need one");
  return found.address;
};

/** A TCP port that was free a moment ago. */
export const freePort = async (): Promise<number> =>
  new Promise((resolve, reject) => {
    const probe = createServer();
    probe.once("error", reject);
    probe.listen(0, "127.0.0.1", () => {
      const address = probe.address();
      probe.close(() => (typeof address === "object" && address ? resolve(address.port) : reject(new Error("no port"))));
    });
  });

const openssl = async (cwd: string, ...args: string[]): Promise<void> =>
  void (await execa("openssl", args, { cwd, timeout: 30_000 }));

/** A CA of its own, and a certificate by it for each name. Files stand in `directory` as <name>.crt and <name>.key. */
export const makeCertificates = async (directory: string, ...names: string[]): Promise<void> => {
  const ec = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
  await openssl(directory, "req", "-x509", ...ec, "-keyout", "ca.key", "-out", "ca.crt", "-days", "2", "-subj", "/CN=ca");
  for (const name of names) {
    await openssl(
      directory,
      "req",
      ...ec,
      "-keyout",
      `${name}.key`,
      "-out",
      `${name}.csr`,
      "-subj",
      `/CN=${name}`,
      "-addext",
      `subjectAltName=DNS:${name}`,
    );
    await openssl(
      directory,
      "x509",
      "-req",
      "-copy_extensions",
      "copy",
      "-in",
      `${name}.csr`,
      "-CA",
      "ca.crt",
      "-CAkey",
      "ca.key",
      "-CAcreateserial",
      "-days",
      "2",
      "-out",
      `${name}.crt`,
    );
  }
};

export const readCertificates = async (directory: string, name: string): Promise<TlsFiles> => {
  const [ca, cert, key] = await Promise.all(
    ["ca.crt", `${name}.crt`, `${name}.key`].map((file) => readFile(join(directory, file), "utf8")),
  );
  if (ca === undefined || cert === undefined || key === undefined) throw new Error(`no certificates of ${name} in ${directory}`);
  return { ca, cert, key };
};

/** Resolves when the file is there; rejects after ten seconds. */
export const fileAppears = async (path: string): Promise<void> => {
  const changes = watch(dirname(path), { signal: AbortSignal.timeout(10_000) });
  const next = changes[Symbol.asyncIterator]();
  for (let pending = next.next(); !existsSync(path); pending = next.next()) await pending;
  await next.return?.();
};

/** Runs until stop(); everything lies in `directory`, which is its owner's to remove. */
export class OvsdbServer {
  readonly socket: string;
  readonly #directory: string;
  readonly #name: string;
  readonly #args: string[];
  #process: ResultPromise | undefined;

  constructor(directory: string, name: string, args: string[] = []) {
    this.#directory = directory;
    this.#name = name;
    this.#args = args;
    this.socket = join(directory, `${name}.sock`);
  }

  get #database(): string {
    return join(this.#directory, `${this.#name}.db`);
  }

  get pid(): number {
    const pid = this.#process?.pid;
    if (pid === undefined) throw new Error(`${this.#name} does not run`);
    return pid;
  }

  /** Makes the database anew, empty. */
  async create(schema: string): Promise<void> {
    await rm(this.#database, { force: true });
    await execa("ovsdb-tool", ["create", this.#database, schema], { timeout: 10_000 });
  }

  /** Makes the database a cluster of one. */
  async createCluster(schema: string, address: string): Promise<void> {
    await rm(this.#database, { force: true });
    await execa("ovsdb-tool", ["create-cluster", this.#database, schema, address], { timeout: 10_000 });
  }

  /** Makes the database a further member of a cluster. */
  async joinCluster(database: string, address: string, ...others: string[]): Promise<void> {
    await rm(this.#database, { force: true });
    await execa("ovsdb-tool", ["join-cluster", this.#database, database, address, ...others], { timeout: 10_000 });
  }

  /** Starts it and resolves when it answers on its socket. */
  async start(): Promise<void> {
    const files = ["unixctl=ctl", "pidfile=pid", "log-file=log"].map((pair) => {
      const [option, ending] = pair.split("=");
      return `--${option}=${join(this.#directory, `${this.#name}.${ending}`)}`;
    });
    const args = [this.#database, `--remote=punix:${this.socket}`, ...files, "-vconsole:off", ...this.#args];
    await rm(this.socket, { force: true });
    const there = fileAppears(this.socket);
    const running = execa("ovsdb-server", args, { cwd: this.#directory, reject: false });
    this.#process = running;
    const ended = running.then((result) => {
      throw new Error(`ovsdb-server ${this.#name} did not start: ${result.stderr || result.shortMessage}`);
    });
    ended.catch(() => undefined); // its end matters only until it is up
    await Promise.race([there, ended]);
  }

  async stop(signal: "SIGTERM" | "SIGKILL" = "SIGTERM"): Promise<void> {
    const running = this.#process;
    this.#process = undefined;
    running?.kill(signal);
    await running;
  }

  /** Asks it by its control socket. */
  async control(...command: string[]): Promise<string> {
    const { stdout } = await execa("ovs-appctl", ["-t", join(this.#directory, `${this.#name}.ctl`), ...command], {
      timeout: 10_000,
    });
    return stdout;
  }
}
