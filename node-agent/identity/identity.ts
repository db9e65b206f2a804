/** A node's certificate, kept valid for as long as the process lives. The key never leaves memory, unless its owner takes it out. */
import { backoffMs, errorText, sleep, type Clock, type Logger } from "../../kube/index.ts";
import { renewAt, validityOf, type IdentityMaterial } from "./certificate.ts";

/** What others see of it. */
export interface NodeIdentity {
  /** Undefined before the first certificate, and once the last one has expired. All PEM. */
  current: () => IdentityMaterial | undefined;
  /** Tells of each new certificate. What stands on the old one goes on: it is looked at only when a connection begins. */
  onChange: (fn: (now: IdentityMaterial) => void) => () => void;
  /** Resolves when there is a valid one. Rejects when the signal aborts. */
  ready: (signal: AbortSignal) => Promise<IdentityMaterial>;
}

export interface IdentityOptions {
  /** Asks for a certificate with a new key; throws when there is none to be had. */
  ask: (signal: AbortSignal) => Promise<IdentityMaterial>;
  clock: Clock;
  log: Logger;
  random?: () => number;
  /** One from an earlier life of the process; an expired or unreadable one is not used. */
  before?: IdentityMaterial | undefined;
}

/** The wall clock is looked at so often: it can be set, and a machine can sleep. */
const LOOK_MS = 10 * 60_000;
const RETRY = { baseMs: 1_000, capMs: 5 * 60_000 };

export class RenewedIdentity implements NodeIdentity {
  readonly #options: IdentityOptions;
  readonly #handlers = new Set<(now: IdentityMaterial) => void>();
  #held: { material: IdentityMaterial; expires: number; renew: number } | undefined;

  constructor(options: IdentityOptions) {
    this.#options = options;
    if (options.before !== undefined) this.#hold(options.before);
  }

  current(): IdentityMaterial | undefined {
    const held = this.#held;
    return held !== undefined && this.#options.clock.now() < held.expires ? held.material : undefined;
  }

  /** When the one that is held expires, ms since 1970; undefined while there is none. */
  get expires(): number | undefined {
    return this.#held?.expires;
  }

  onChange(fn: (now: IdentityMaterial) => void): () => void {
    this.#handlers.add(fn);
    return () => void this.#handlers.delete(fn);
  }

  async ready(signal: AbortSignal): Promise<IdentityMaterial> {
    signal.throwIfAborted();
    const now = this.current();
    if (now !== undefined) return now;
    const { promise, resolve, reject } = Promise.withResolvers<IdentityMaterial>();
    const forget = this.onChange(resolve);
    const aborted = (): void => reject(signal.reason);
    signal.addEventListener("abort", aborted, { once: true });
    try {
      return await promise;
    } finally {
      forget();
      signal.removeEventListener("abort", aborted);
    }
  }

  /** Gets the first certificate, and a new one after two thirds of each one's life. Ends with the signal; never throws. */
  async run(signal: AbortSignal): Promise<void> {
    const { ask, clock, log } = this.#options;
    let failures = 0;
    while (!signal.aborted) {
      const left = (this.#held?.renew ?? 0) - clock.now();
      if (left > 0) {
        await sleep(clock, Math.min(left, LOOK_MS), signal);
        continue;
      }
      try {
        const material = await ask(signal);
        this.#hold(material);
        failures = 0;
        log.info({ expires: this.#told(this.expires) }, "the node's certificate is new");
        for (const handler of this.#handlers) handler(material);
      } catch (error) {
        if (signal.aborted) return;
        failures += 1;
        log.warn({ error: errorText(error), expires: this.#told(this.expires) }, "no certificate could be had; trying again");
        await sleep(clock, backoffMs(failures, RETRY, this.#options.random), signal);
      }
    }
  }

  #hold(material: IdentityMaterial): void {
    const validity = validityOf(material.cert);
    this.#held = { material, expires: validity.to, renew: renewAt(validity, (this.#options.random ?? Math.random)()) };
  }

  #told(time: number | undefined): string | undefined {
    return time === undefined ? undefined : new Date(time).toISOString();
  }
}
