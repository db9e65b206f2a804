/**
 * Bytes to JSON values. OVSDB writes one JSON object after the other with nothing between them, so the end of a message is
 * found by counting brackets outside strings. Structure in JSON is ASCII and no byte of a multi-byte UTF-8 character is, so
 * counting on bytes is safe wherever a read was cut; text is decoded only once a message is whole.
 */

const QUOTE = 0x22;
const BACKSLASH = 0x5c;
const OPEN_BRACE = 0x7b;
const CLOSE_BRACE = 0x7d;
const OPEN_BRACKET = 0x5b;
const CLOSE_BRACKET = 0x5d;

const isSpace = (byte: number): boolean => byte === 0x20 || byte === 0x0a || byte === 0x0d || byte === 0x09;

/** The peer sent something that is not a sequence of JSON objects; the connection is of no more use. */
export class WireError extends Error {
  override name = "WireError";
}

/** Splits a byte stream into JSON values, whatever way the reads fall. */
export class JsonSplitter {
  readonly #maxBytes: number;
  #kept: Buffer[] = [];
  #keptBytes = 0;
  #depth = 0;
  #inString = false;
  #escaped = false;

  /** `maxBytes`: longest message accepted; a peer that never ends one must not eat the memory. */
  constructor(maxBytes = 512 * 1024 * 1024) {
    this.#maxBytes = maxBytes;
  }

  /** Whether part of a message is waiting for its rest. */
  get pending(): boolean {
    return this.#depth > 0;
  }

  /** Values that end in `chunk`, in order. Throws WireError for what is not JSON objects; the splitter is then of no more use. */
  push(chunk: Buffer): unknown[] {
    const values: unknown[] = [];
    let start = 0;
    for (let at = 0; at < chunk.length; at += 1) {
      const byte = chunk[at] ?? 0;
      if (this.#inString) {
        if (this.#escaped) this.#escaped = false;
        else if (byte === BACKSLASH) this.#escaped = true;
        else if (byte === QUOTE) this.#inString = false;
      } else if (byte === OPEN_BRACE || byte === OPEN_BRACKET) {
        if (this.#depth === 0) start = at;
        this.#depth += 1;
      } else if (byte === CLOSE_BRACE || byte === CLOSE_BRACKET) {
        this.#depth -= 1;
        if (this.#depth < 0) throw new WireError("the peer closed a bracket that it had not opened");
        if (this.#depth === 0) {
          values.push(this.#finish(chunk.subarray(start, at + 1)));
          start = at + 1;
        }
      } else if (this.#depth === 0) {
        if (!isSpace(byte)) throw new WireError(`the peer sent byte 0x${byte.toString(16)} where a JSON object should begin`);
      } else if (byte === QUOTE) this.#inString = true;
    }
    if (this.#depth > 0) this.#keep(chunk.subarray(start));
    return values;
  }

  #keep(part: Buffer): void {
    this.#keptBytes += part.length;
    if (this.#keptBytes > this.#maxBytes) throw new WireError(`the peer sent a message of more than ${this.#maxBytes} bytes`);
    this.#kept.push(part);
  }

  #finish(last: Buffer): unknown {
    const whole = this.#kept.length === 0 ? last : Buffer.concat([...this.#kept, last]);
    this.#kept = [];
    this.#keptBytes = 0;
    try {
      return JSON.parse(whole.toString("utf8")) as unknown;
    } catch (cause) {
      throw new WireError("the peer sent a message that is not JSON", { cause });
    }
  }
}

/** Bytes of one message. */
export const encodeMessage = (message: unknown): Buffer => Buffer.from(JSON.stringify(message), "utf8");
