/** One connection made fit for use: session, leader check, schema, monitors. Ends as a whole when any of it does. */
import type { Clock } from "../kube/clock.ts";
import { errorText, OvsdbError } from "./errors.ts";
import { unfitBecause } from "./leader.ts";
import { routeUpdate, startMonitor } from "./monitor.ts";
import { connectRemote, type Remote, type TlsFiles } from "./remote.ts";
import { Replica } from "./replica.ts";
import { type DatabaseSchema, readSchema } from "./schema.ts";
import { Session } from "./session.ts";

export interface ConnectionOptions {
  remote: Remote;
  database: string;
  leaderOnly: boolean;
  tls: TlsFiles | undefined;
  clock: Clock;
  inactivityProbeMs: number;
  timeoutMs: number;
  signal: AbortSignal;
}

const SERVER_DATABASE = "_Server";

export class Connection {
  readonly session: Session;
  readonly schema: DatabaseSchema;
  readonly #database: string;
  readonly #timeoutMs: number;
  readonly #replicas: Map<string, Replica>;
  #nextMonitor = 1;

  private constructor(session: Session, schema: DatabaseSchema, replicas: Map<string, Replica>, opts: ConnectionOptions) {
    this.session = session;
    this.schema = schema;
    this.#replicas = replicas;
    this.#database = opts.database;
    this.#timeoutMs = opts.timeoutMs;
  }

  /** Connects and checks that the server has the database and, if asked, leads. Rejects with why not, leaving nothing open. */
  static async open(opts: ConnectionOptions): Promise<Connection> {
    const stream = await connectRemote(opts.remote, opts);
    const replicas = new Map<string, Replica>();
    const session = new Session(stream, {
      clock: opts.clock,
      inactivityProbeMs: opts.inactivityProbeMs,
      requestTimeoutMs: opts.timeoutMs,
      onNotification: (method, params) => {
        if (method === "monitor_canceled")
          session.close(new Error("the server cancelled a monitor; the database was replaced or removed"));
        else routeUpdate(method, params, replicas);
      },
    });
    const stop = (): void => session.close(new Error("stopped"));
    opts.signal.addEventListener("abort", stop, { once: true });
    void session.closed.then(() => opts.signal.removeEventListener("abort", stop));
    try {
      if (opts.signal.aborted) stop();
      await watchFitness(session, replicas, opts);
      const schema = readSchema(await session.request("get_schema", [opts.database]));
      return new Connection(session, schema, replicas, opts);
    } catch (error) {
      session.close(new Error(errorText(error), { cause: error }));
      throw error;
    }
  }

  /** Brings a replica in step and keeps it so until the session ends. */
  async monitor(replica: Replica): Promise<void> {
    const id = `drover-${this.#nextMonitor}`;
    this.#nextMonitor += 1;
    this.#replicas.set(id, replica);
    await startMonitor({
      session: this.session,
      database: this.#database,
      schema: this.schema,
      replica,
      id,
      timeoutMs: this.#timeoutMs * 6, // a first snapshot may be large
    });
  }
}

/** Checks the server's place in its cluster, and closes the session when that changes for the worse. */
const watchFitness = async (session: Session, replicas: Map<string, Replica>, opts: ConnectionOptions): Promise<void> => {
  const server = new Replica({ Database: {} }, () => undefined);
  const why = (): string | undefined => unfitBecause(server.rows("Database").values(), opts.database, opts.leaderOnly);
  try {
    const schema = readSchema(await session.request("get_schema", [SERVER_DATABASE]));
    replicas.set("drover-server", server);
    await startMonitor({
      session,
      database: SERVER_DATABASE,
      schema,
      replica: server,
      id: "drover-server",
      timeoutMs: opts.timeoutMs,
    });
  } catch (error) {
    if (error instanceof OvsdbError) return; // a server from before _Server: it is never clustered
    throw error;
  }
  const unfit = why();
  if (unfit !== undefined) throw new Error(`the server will not do: ${unfit}`);
  server.onChange(() => {
    const reason = why();
    if (reason !== undefined) session.close(new Error(`the server will no longer do: ${reason}`));
  });
};
