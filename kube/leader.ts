/**
 * One leader at a time, by a Lease.
 *
 * The leader counts on its own monotonic clock from before it sent its last renewal that succeeded: after renewDeadlineMs it
 * stops acting. Others count on their own clocks from when they saw that renewal, which was later, and wait for
 * leaseDurationMs, which is longer. So the two never act at once however their wall clocks differ, as long as clocks run at
 * about the same speed and a write that was sent before the stop arrives within leaseDurationMs - renewDeadlineMs.
 * A process that was frozen wakes up with its time over: `assertLeading`, asked before each write, sees that at once, before
 * any timer has had its turn.
 */
import type { Lease } from "./builtin.ts";
import type { ClientOptions, KubeClient } from "./client.ts";
import { realClock, sleep, type Clock, type TimerHandle } from "./clock.ts";
import { ApiError, errorText } from "./errors.ts";
import { silentLogger, type Logger } from "./logger.ts";
import { leaderMetrics } from "./metrics.ts";
import { resources } from "./resources.ts";

/** As much of KubeClient as an election needs. */
export type LeaseClient = Pick<KubeClient, "get" | "create" | "replace"> & { with(options: ClientOptions): LeaseClient };

export interface LeaderOptions {
  client: LeaseClient;
  namespace: string;
  name: string;
  /** Unique among everything that may run at the same time: the pod's name. */
  identity: string;
  /** For how long others leave the Lease to a leader they do not hear of; whole seconds. */
  leaseDurationMs?: number;
  /** After which a leader that could not renew stops acting; shorter than leaseDurationMs. */
  renewDeadlineMs?: number;
  /** Between renewals, and between attempts to become leader. */
  retryPeriodMs?: number;
  clock?: Clock;
  random?: () => number;
  logger?: Logger;
}

/** A write was about to be made by somebody who no longer leads. */
export class NotLeadingError extends Error {
  override readonly name = "NotLeadingError";
}

interface Term {
  lease: Lease;
  /** On the monotonic clock. */
  validUntil: number;
  /** Tells what is led to end: because of a stop, or because the leadership is lost. */
  abort: AbortController;
  lost: boolean;
  timer?: TimerHandle;
}

export class LeaderElector {
  readonly #options: Required<Omit<LeaderOptions, "clock" | "random" | "logger">>;
  readonly #client: LeaseClient;
  readonly #clock: Clock;
  readonly #random: () => number;
  readonly #logger: Logger;
  /** What of the Lease was seen last, and when (monotonic). */
  #seen: { mark: string; at: number } | undefined;
  #term: Term | undefined;

  constructor(options: LeaderOptions) {
    const { clock = realClock, random = Math.random, logger = silentLogger, ...rest } = options;
    this.#options = { leaseDurationMs: 15_000, renewDeadlineMs: 10_000, retryPeriodMs: 2_000, ...rest };
    const { leaseDurationMs, renewDeadlineMs, retryPeriodMs } = this.#options;
    if (!(retryPeriodMs * 2 <= renewDeadlineMs && renewDeadlineMs < leaseDurationMs) || leaseDurationMs % 1000 !== 0) {
      throw new Error(
        "leader election needs 2 x retryPeriodMs <= renewDeadlineMs < leaseDurationMs, and a lease of whole seconds",
      );
    }
    // No single request may use up the time in which another attempt could still succeed.
    this.#client = options.client.with({ deadlineMs: Math.max(500, Math.floor(renewDeadlineMs / 2)), guard: () => undefined });
    this.#clock = clock;
    this.#random = random;
    this.#logger = logger;
  }

  /** Whether this process may act now. True also while it drains after a stop: it holds and renews the Lease until then. */
  get isLeading(): boolean {
    const term = this.#term;
    return term !== undefined && !term.lost && this.#clock.monotonic() < term.validUntil;
  }

  /** For `KubeClient.with({guard})`. @throws NotLeadingError when this process must not write */
  readonly assertLeading = (): void => {
    if (!this.isLeading)
      throw new NotLeadingError(`not leading ${this.#options.namespace}/${this.#options.name} any more: nothing is written`);
  };

  /**
   * Waits to become leader, then runs `lead` with a signal that aborts before another may start. When leadership is lost and
   * lead has returned, it waits again. Resolves when the signal aborts or lead returns while leading; the Lease is handed
   * back then, after lead has ended, so that the next one need not wait.
   * @throws what lead throws while leading
   */
  async run(lead: (signal: AbortSignal) => Promise<void>, signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      const term = await this.#acquire(signal);
      if (!term) return;
      const lost = await this.#lead(term, lead, signal);
      if (!lost) return;
    }
  }

  async #acquire(signal: AbortSignal): Promise<Term | undefined> {
    while (!signal.aborted) {
      const sentAt = this.#clock.monotonic();
      try {
        const lease = await this.#tryAcquire();
        if (lease)
          return { lease, validUntil: sentAt + this.#options.renewDeadlineMs, abort: new AbortController(), lost: false };
      } catch (error) {
        const conflict = error instanceof ApiError && error.isConflict;
        this.#logger[conflict ? "debug" : "warn"](
          { lease: this.#options.name, error: errorText(error) },
          "could not ask for leadership",
        );
      }
      // Up to a fifth more, so that candidates do not come all at once.
      await sleep(this.#clock, this.#options.retryPeriodMs * (1 + 0.2 * this.#random()), signal);
    }
    return undefined;
  }

  async #tryAcquire(): Promise<Lease | undefined> {
    const { namespace, name } = this.#options;
    const found = await this.#client.get(resources.leases, { namespace, name });
    if (!found) {
      const fresh: Lease = {
        apiVersion: "coordination.k8s.io/v1",
        kind: "Lease",
        metadata: { namespace, name },
        spec: this.#spec(undefined),
      };
      return this.#client.create(resources.leases, fresh);
    }
    if (!this.#mayTake(found)) return undefined;
    return this.#client.replace(resources.leases, { ...found, spec: this.#spec(found.spec) });
  }

  /** Only after having watched the holder not renew for its whole lease, on our own clock. */
  #mayTake(lease: Lease): boolean {
    const { holderIdentity, renewTime, leaseDurationSeconds } = lease.spec ?? {};
    if (!holderIdentity || holderIdentity === this.#options.identity) return true;
    const mark = `${lease.metadata.uid}/${holderIdentity}/${renewTime}/${lease.metadata.resourceVersion}`;
    const now = this.#clock.monotonic();
    if (this.#seen?.mark !== mark) {
      this.#seen = { mark, at: now };
      return false;
    }
    const duration = leaseDurationSeconds === undefined ? this.#options.leaseDurationMs : leaseDurationSeconds * 1000;
    return now - this.#seen.at >= duration;
  }

  #spec(before: Lease["spec"]): NonNullable<Lease["spec"]> {
    const now = new Date(this.#clock.now()).toISOString().replace("Z", "000Z");
    const { identity, leaseDurationMs } = this.#options;
    const ours = before?.holderIdentity === identity;
    return {
      holderIdentity: identity,
      leaseDurationSeconds: leaseDurationMs / 1000,
      renewTime: now,
      acquireTime: ours ? (before.acquireTime ?? now) : now,
      leaseTransitions: (before?.leaseTransitions ?? 0) + (before && !ours ? 1 : 0),
    };
  }

  /** True when leadership was lost, false when it ended as it should. */
  async #lead(term: Term, lead: (signal: AbortSignal) => Promise<void>, signal: AbortSignal): Promise<boolean> {
    const { name } = this.#options;
    this.#term = term;
    this.#armDeadline(term);
    this.#logger.info({ lease: name, identity: this.#options.identity }, "leading");
    leaderMetrics.leading.set({ lease: name }, 1);
    leaderMetrics.changes.inc({ lease: name, change: "began" });
    const stop = (): void => term.abort.abort(signal.reason ?? new Error("stopped"));
    if (signal.aborted) stop();
    else signal.addEventListener("abort", stop, { once: true });
    const ended = new AbortController();
    const renewing = this.#renewUntil(term, ended.signal);
    try {
      await lead(term.abort.signal);
      return !signal.aborted && term.lost;
    } catch (error) {
      // Being stopped in the middle is how a lost leadership looks from inside.
      if (!term.abort.signal.aborted) throw error;
      this.#logger.warn({ lease: name, error: errorText(error) }, "what was led ended with an error after it was told to end");
      return !signal.aborted;
    } finally {
      signal.removeEventListener("abort", stop);
      ended.abort();
      await renewing;
      this.#clock.clearTimeout(term.timer);
      leaderMetrics.leading.set({ lease: name }, 0);
      leaderMetrics.changes.inc({ lease: name, change: "ended" });
      const held = !term.lost && this.#clock.monotonic() < term.validUntil;
      this.#term = undefined;
      if (held) await this.#release(term);
    }
  }

  /** Renews until what is led has ended (a stop does not end it: the Lease is ours until the last reconcile is drained). */
  async #renewUntil(term: Term, ended: AbortSignal): Promise<void> {
    for (;;) {
      await sleep(this.#clock, this.#options.retryPeriodMs, ended);
      if (ended.aborted || this.#clock.monotonic() >= term.validUntil) return;
      const sentAt = this.#clock.monotonic();
      try {
        term.lease = await this.#renew(term.lease);
        term.validUntil = sentAt + this.#options.renewDeadlineMs;
        this.#armDeadline(term);
      } catch (error) {
        this.#logger.warn({ lease: this.#options.name, error: errorText(error) }, "could not renew the leadership");
        if (error instanceof NotLeadingError) {
          term.lost = true;
          term.abort.abort(error);
          return;
        }
      }
    }
  }

  async #renew(lease: Lease): Promise<Lease> {
    try {
      return await this.#client.replace(resources.leases, { ...lease, spec: this.#spec(lease.spec) });
    } catch (error) {
      if (!(error instanceof ApiError && (error.isConflict || error.isNotFound))) throw error;
      // Somebody wrote: our own renewal whose answer was lost, a person with kubectl, or another leader.
      const { namespace, name, identity } = this.#options;
      const now = await this.#client.get(resources.leases, { namespace, name });
      if (now?.spec?.holderIdentity === identity)
        return this.#client.replace(resources.leases, { ...now, spec: this.#spec(now.spec) });
      throw new NotLeadingError(`Lease ${namespace}/${name} is now held by ${now?.spec?.holderIdentity || "nobody"}`, {
        cause: error,
      });
    }
  }

  #armDeadline(term: Term): void {
    this.#clock.clearTimeout(term.timer);
    term.timer = this.#clock.setTimeout(() => {
      this.#logger.error({ lease: this.#options.name }, "could not renew in time: stops acting");
      term.lost = true;
      term.abort.abort(
        new NotLeadingError(`Lease ${this.#options.namespace}/${this.#options.name} could not be renewed in time`),
      );
    }, term.validUntil - this.#clock.monotonic());
  }

  /** Hands the Lease back, so that others need not wait for its end. Failing is harmless: they wait then. */
  async #release(term: Term): Promise<void> {
    const spec = {
      ...term.lease.spec,
      holderIdentity: "",
      leaseDurationSeconds: 1,
      renewTime: this.#spec(undefined).renewTime ?? "",
    };
    try {
      await this.#client.replace(resources.leases, { ...term.lease, spec });
      this.#logger.info({ lease: this.#options.name }, "leadership handed back");
    } catch (error) {
      this.#logger.warn(
        { lease: this.#options.name, error: errorText(error) },
        "the leadership could not be handed back; it ends by itself",
      );
    }
  }
}
