/** Starts a replica's monitor on a session, in the best form that the server knows. */
import { OvsdbError } from "./errors.ts";
import type { Replica } from "./replica.ts";
import type { DatabaseSchema } from "./schema.ts";
import type { RequestOptions, Session } from "./session.ts";

/** monitor_cond_since resumes after a reconnect, monitor_cond knows conditions, monitor is what RFC 7047 has. */
const FORMS = ["monitor_cond_since", "monitor_cond", "monitor"] as const;
type Form = (typeof FORMS)[number];

const isUnknownMethod = (error: unknown): boolean => error instanceof OvsdbError && /unknown method/i.test(error.message);

export interface MonitorOptions {
  session: Session;
  database: string;
  schema: DatabaseSchema;
  replica: Replica;
  /** Names the monitor within its session; updates carry it. */
  id: string;
  timeoutMs: number;
}

/** Resolves once the replica is in step. Rejects with the server's words; the replica is then as it was. */
export const startMonitor = async (opts: MonitorOptions): Promise<Form> => {
  for (const form of FORMS) {
    try {
      await requestMonitor(form, opts);
      return form;
    } catch (error) {
      if (!isUnknownMethod(error) || form === "monitor") throw error;
    }
  }
  throw new Error("unreachable: the last form either starts or throws");
};

const requestMonitor = async (
  form: Form,
  { session, database, schema, replica, id, timeoutMs }: MonitorOptions,
): Promise<void> => {
  const wanted = replica.request(schema);
  if (form === "monitor" && wanted.conditional) {
    throw new Error("the OVSDB server knows no conditional monitor; it is older than Open vSwitch 2.6");
  }
  // In onResult, not behind await: updates may stand in the same read as the reply.
  const onResult: RequestOptions["onResult"] = (result) => {
    if (form === "monitor_cond_since") {
      const [found, transaction, updates] = result as [boolean, string, unknown];
      if (found) replica.update(updates, 2);
      else replica.reset(updates, 2);
      replica.lastTransaction = transaction;
    } else replica.reset(result, form === "monitor_cond" ? 2 : 1);
    replica.markSynced();
  };
  const params = [database, id, form === "monitor" ? wanted.plain : wanted.withConditions];
  if (form === "monitor_cond_since") params.push(replica.lastTransaction);
  await session.request(form, params, { timeoutMs, onResult });
};

/** Hands an update notification to its replica. Throws when it does not fit: the session is then to be closed and begun anew. */
export const routeUpdate = (method: string, params: readonly unknown[], replicas: ReadonlyMap<string, Replica>): void => {
  const replica = typeof params[0] === "string" ? replicas.get(params[0]) : undefined;
  if (!replica) return;
  if (method === "update3") {
    replica.update(params[2], 2);
    if (typeof params[1] === "string") replica.lastTransaction = params[1];
  } else if (method === "update2") replica.update(params[1], 2);
  else if (method === "update") replica.update(params[1], 1);
};
