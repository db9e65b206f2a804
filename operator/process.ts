/** The operator as a process: caches in every replica, controllers in the leader. */
import { LeaderElector, realClock, registry, serveHealth, type KubeClient, type Logger } from "../kube/index.ts";
import { OperatorProcess } from "../kube/operator.ts";
import { OPERATOR_MANAGER } from "../crds/names.ts";
import { makeCaches, startCaches, unsynced, type Caches } from "./context.ts";
import type { DrainSettings, WebhookSettings } from "./drain/settings.ts";
import { serveWebhook, webhookFiles } from "./drain/webhook.ts";
import type { OperatorEnv } from "./env.ts";
import { exposeInstances } from "./metrics.ts";
import { instanceIndexes, setupNetworks, type NetworkSettings } from "./network/index.ts";
import { exposeRollouts } from "./rollout/metrics.ts";
import { runTerm } from "./term.ts";

const LEASE = "drover-operator";

export interface DroverOptions {
  client: KubeClient;
  logger: Logger;
  env: OperatorEnv;
  network: NetworkSettings;
  drain: DrainSettings & { webhook: WebhookSettings | undefined };
}

/** A term that ended although nobody asked the process to stop. */
export class LeadershipLostError extends Error {
  override readonly name = "LeadershipLostError";
}

/**
 * Runs until it is stopped, or until the leadership is lost: `run` then throws LeadershipLostError, so that the process ends and
 * nothing of the lost term can act again.
 */
export class DroverOperator extends OperatorProcess {
  readonly #options: DroverOptions;
  readonly #caches: Caches;
  readonly #elector: LeaderElector;

  constructor(options: DroverOptions) {
    const { client, logger, env } = options;
    super({ client, logger, manager: OPERATOR_MANAGER });
    this.#options = options;
    this.#caches = makeCaches(client, { namespace: env.namespace, networkIndexes: instanceIndexes, logger });
    this.#elector = new LeaderElector({ client, namespace: env.namespace, name: LEASE, identity: env.identity, logger });
  }

  protected override async init(): Promise<void> {
    exposeInstances(this.#caches.instances, registry);
    exposeRollouts(this.#caches.rollouts, registry);
    const health = await serveHealth({
      port: this.#options.env.httpPort,
      ready: () => {
        const missing = unsynced(this.#caches);
        return missing.length === 0 || `not read yet: ${missing.join(", ")}`;
      },
      live: () => true,
      registry,
    });
    this.work("health", async (signal) => {
      await aborted(signal);
      await health.close();
    });
    const { webhook, deadlineMs } = this.#options.drain;
    if (webhook !== undefined) this.work("webhook", (signal) => this.#answerEvictions(webhook, deadlineMs, signal));
    this.work("controllers", async (signal) => {
      await startCaches(this.#caches, signal);
      await this.#elector.run((term) => this.#lead(term, signal), signal);
    });
  }

  /** In every replica, leading or not: an eviction is refused by the words of whoever is asked. */
  async #answerEvictions({ directory, port }: WebhookSettings, deadlineMs: number, signal: AbortSignal): Promise<void> {
    const { client, logger: log } = this.#options;
    // The API server waits 5 s for an answer.
    const ctx = { client: client.with({ deadlineMs: 3000 }), caches: this.#caches, log, now: () => realClock.now(), deadlineMs };
    const webhook = await serveWebhook(() => webhookFiles(directory), port, ctx);
    await aborted(signal);
    await webhook.close();
  }

  async #lead(term: AbortSignal, process: AbortSignal): Promise<void> {
    const { client, logger, env, network, drain } = this.#options;
    const { identity, claims: settings, migration, updates, certificates } = env;
    const parts = {
      caches: this.#caches,
      log: logger,
      clock: realClock,
      identity,
      settings,
      migration,
      updates,
      certificates,
      drain,
    };
    const guarded = client.with({ guard: this.#elector.assertLeading });
    await runTerm({ ...parts, client: guarded, network: (ctx) => setupNetworks(ctx, network) }, term);
    if (!process.aborted) this.work("leadership", () => Promise.reject(new LeadershipLostError("the leadership was lost")));
  }
}

const aborted = (signal: AbortSignal): Promise<void> =>
  new Promise((resolve) => {
    if (signal.aborted) resolve();
    else signal.addEventListener("abort", () => resolve(), { once: true });
  });
