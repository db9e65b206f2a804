/** Keeps the connection to the target's agent: calls, and calls again when it breaks. */
import { backoffMs, sleep, type Clock, type Logger } from "../../../kube/index.ts";
import { errorText } from "../../errors.ts";
import type { SourceLink } from "../channel/client.ts";
import type { SourceMessage, TargetMessage } from "../channel/messages.ts";

export interface CallerOptions {
  call: (signal: AbortSignal) => Promise<SourceLink>;
  onMessage: (message: TargetMessage) => void;
  /** The connection stands, or has ended. */
  onChange: () => void;
  clock: Clock;
  log: Logger;
}

const RETRY = { baseMs: 100, capMs: 2_000, jitter: 0.2 };

export class Caller {
  readonly #options: CallerOptions;
  readonly #stop = new AbortController();
  #link: SourceLink | undefined;
  #running: Promise<void> | undefined;
  #downSince: number;
  /** Why it is not up. */
  trouble = "it was not connected yet";

  constructor(options: CallerOptions) {
    this.#options = options;
    this.#downSince = options.clock.monotonic();
  }

  /** Begins to call; to be repeated at will. */
  begin(): void {
    this.#running ??= this.#run();
  }

  get begun(): boolean {
    return this.#running !== undefined;
  }

  /** The connection that stands now, to be told from another. */
  get connection(): unknown {
    return this.#link;
  }

  get open(): boolean {
    return this.#link?.open === true;
  }

  /** How long there has been no connection, ms; 0 while there is one. */
  downMs(): number {
    return this.open ? 0 : this.#options.clock.monotonic() - this.#downSince;
  }

  /** Whether it could be sent; whether it arrives nobody knows. */
  send(message: SourceMessage): boolean {
    if (this.#link?.open !== true) return false;
    this.#link.send(message);
    return true;
  }

  async close(why: string): Promise<void> {
    this.#stop.abort();
    this.#link?.close(why);
    await this.#running;
  }

  async #run(): Promise<void> {
    const { call, clock, log, onMessage, onChange } = this.#options;
    const { signal } = this.#stop;
    for (let failures = 0; !signal.aborted; ) {
      try {
        const link = await call(signal);
        failures = 0;
        this.#link = link;
        link.onMessage(onMessage);
        onChange();
        this.trouble = await new Promise<string>((resolve) => link.onClose(resolve));
        this.#downSince = clock.monotonic();
        onChange();
      } catch (error) {
        if (signal.aborted) return;
        failures += 1;
        this.trouble = errorText(error);
        if (failures === 1) log.debug({ error: this.trouble }, "the target's agent is not reached yet; trying again");
        onChange();
      }
      await sleep(clock, backoffMs(failures + 1, RETRY), signal);
    }
  }
}
