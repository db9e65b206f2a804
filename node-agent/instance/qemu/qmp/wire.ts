/** Bytes <-> messages of QEMU's protocols: one JSON object per line. Knows nothing of requests and replies. */

export type JsonObject = { [key: string]: unknown };

export const isObject = (value: unknown): value is JsonObject =>
  typeof value === "object" && value !== null && !Array.isArray(value);

/** A line longer than this is no answer of QEMU's: the peer is wrong or hostile. */
const LINE_LIMIT = 16 * 1024 * 1024;

/** Splits a byte stream into messages, however the reads fall. */
export class LineDecoder {
  readonly #limit: number;
  #chunks: Buffer[] = [];
  #length = 0;

  constructor(limit: number = LINE_LIMIT) {
    this.#limit = limit;
  }

  /** Messages that this read completes. Throws when a line is no JSON object or too long; the stream is useless then. */
  push(chunk: Buffer): JsonObject[] {
    const messages: JsonObject[] = [];
    let rest = chunk;
    for (let end = rest.indexOf(0x0a); end >= 0; end = rest.indexOf(0x0a)) {
      const line = this.#take(rest.subarray(0, end));
      rest = rest.subarray(end + 1);
      if (line !== "") messages.push(parse(line));
    }
    if (this.#length + rest.length > this.#limit) throw new Error(`a line of more than ${this.#limit} bytes`);
    if (rest.length > 0) {
      this.#chunks.push(rest);
      this.#length += rest.length;
    }
    return messages;
  }

  #take(last: Buffer): string {
    const line = this.#chunks.length === 0 ? last : Buffer.concat([...this.#chunks, last]);
    this.#chunks = [];
    this.#length = 0;
    // 0xff is the guest agent's mark for "what follows is new"
    const mark = line.lastIndexOf(0xff);
    return line
      .subarray(mark + 1)
      .toString("utf8")
      .trim();
  }
}

function parse(line: string): JsonObject {
  let value: unknown;
  try {
    value = JSON.parse(line);
  } catch (cause) {
    throw new Error(`not JSON: ${line.slice(0, 200)}`, { cause });
  }
  if (!isObject(value)) throw new Error(`not a JSON object: ${line.slice(0, 200)}`);
  return value;
}

/** A message as QEMU reads it. */
export const encode = (message: JsonObject): string => `${JSON.stringify(message)}\n`;
