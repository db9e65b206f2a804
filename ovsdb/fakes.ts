/** For this room's tests: a server's end of a stream. */
import { Duplex, type DuplexOptions } from "node:stream";
import { encodeMessage, JsonSplitter } from "./wire.ts";

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
