/** For this room's tests: time that moves when told, and a server's end of a stream. */
import { Duplex, type DuplexOptions } from "node:stream";
import type { Clock } from "./clock.ts";
import { encodeMessage, JsonSplitter } from "./wire.ts";

interface Timer {
  at: number;
  fn: () => void;
}

export class ManualClock implements Clock {
  #now = 0;
  readonly #timers = new Set<Timer>();

  now(): number {
    return this.#now;
  }

  setTimeout(fn: () => void, ms: number): unknown {
    const timer = { at: this.#now + ms, fn };
    this.#timers.add(timer);
    return timer;
  }

  clearTimeout(handle: unknown): void {
    this.#timers.delete(handle as Timer);
  }

  /** Moves on, running what falls due in order, and lets promises settle between. */
  async advance(ms: number): Promise<void> {
    const end = this.#now + ms;
    for (;;) {
      await settle();
      const due = [...this.#timers].filter((timer) => timer.at <= end).sort((a, b) => a.at - b.at)[0];
      if (!due) break;
      this.#timers.delete(due);
      this.#now = due.at;
      due.fn();
    }
    this.#now = end;
    await settle();
  }
}

/** Lets everything that is ready run. */
export const settle = async (): Promise<void> => {
  for (let turn = 0; turn < 5; turn += 1) await new Promise<void>((resolve) => void setImmediate(resolve));
};

type Message = Record<string, unknown>;

/** The stream a Session is given; the test plays the server. */
export class FakeServer {
  readonly stream: Duplex;
  readonly received: Message[] = [];
  readonly #splitter = new JsonSplitter();

  constructor(options: DuplexOptions = {}) {
    this.stream = new Duplex({
      ...options,
      read: () => undefined,
      write: (chunk: Buffer, _encoding, done) => {
        this.received.push(...(this.#splitter.push(chunk) as Message[]));
        done();
      },
    });
  }

  /** Sends messages as one read. */
  send(...messages: Message[]): void {
    this.stream.push(Buffer.concat(messages.map(encodeMessage)));
  }

  end(): void {
    this.stream.push(null);
  }
}
