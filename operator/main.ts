/** The operator's process: caches in every replica, controllers in the leader. */
import {
  errorText,
  KubeClient,
  LeaderElector,
  realClock,
  registry,
  rootLogger,
  serveHealth,
  untilSignal,
  type Logger,
} from "../kube/index.ts";
import { makeCaches, startCaches, unsynced } from "./context.ts";
import { operatorEnv } from "./env.ts";
import { exposeInstances } from "./metrics.ts";
import { instanceIndexes, networkSettings, setupNetworks } from "./network/index.ts";
import { runTerm } from "./term.ts";

const LEASE = "drover-operator";

/** Runs until SIGTERM, or until the leadership is lost: then it ends, so that nothing of the lost term can act again. */
async function run(log: Logger): Promise<void> {
  const env = operatorEnv(process.env);
  const network = networkSettings(process.env);
  log.level = env.logLevel;
  const ended = new AbortController();
  const signal = AbortSignal.any([untilSignal(), ended.signal]);

  const client = KubeClient.fromDefault({ userAgent: "drover-operator" });
  const caches = makeCaches(client, { namespace: env.namespace, networkIndexes: instanceIndexes, logger: log });
  exposeInstances(caches.instances, registry);
  const ready = () => {
    const missing = unsynced(caches);
    return missing.length === 0 || `not read yet: ${missing.join(", ")}`;
  };
  const health = await serveHealth({ port: env.httpPort, ready, live: () => true, registry });
  const elector = new LeaderElector({ client, namespace: env.namespace, name: LEASE, identity: env.identity, logger: log });
  try {
    await startCaches(caches, signal);
    await elector.run(async (term) => {
      const parts = { caches, log, clock: realClock, identity: env.identity, settings: env.claims };
      const guarded = client.with({ guard: elector.assertLeading });
      await runTerm({ ...parts, client: guarded, network: (ctx) => setupNetworks(ctx, network) }, term);
      if (!signal.aborted) process.exitCode = 1;
      ended.abort(new Error("leadership lost"));
    }, signal);
  } finally {
    ended.abort();
    await health.close();
  }
}

const log = rootLogger("operator");
try {
  await run(log);
  log.info("ended");
} catch (error) {
  log.fatal({ error: errorText(error) }, "the operator cannot go on");
  process.exitCode = 1;
}
