import { describe, expect, it } from "vitest";
import { encodeMessage, JsonSplitter, WireError } from "./wire.ts";

const messages = [
  { id: 1, result: [], error: null },
  { method: "update", params: ["a}b{", '\\" ] [', "\\"], id: null },
  { result: { name: "Zürich – 日本 🐑", nested: [[["set", []]]] } },
  ["a top-level array too"],
];
const bytes = Buffer.concat(messages.map(encodeMessage));

const feed = (sizes: (at: number) => number): unknown[] => {
  const splitter = new JsonSplitter();
  const seen: unknown[] = [];
  for (let at = 0; at < bytes.length; ) {
    const size = sizes(at);
    seen.push(...splitter.push(bytes.subarray(at, at + size)));
    at += size;
  }
  expect(splitter.pending).toBe(false);
  return seen;
};

describe("JsonSplitter", () => {
  it("takes all messages of one read", () => expect(feed(() => bytes.length)).toEqual(messages));
  it.each([1, 2, 3, 5, 7, 11, 64])("takes messages cut every %i bytes, within characters too", (size) => {
    expect(feed(() => size)).toEqual(messages);
  });
  it("takes any one cut", () => {
    for (let cut = 1; cut < bytes.length; cut += 1) expect(feed((at) => (at < cut ? cut : bytes.length))).toEqual(messages);
  });
  it("lets white space stand between messages", () => {
    expect(new JsonSplitter().push(Buffer.from(' {"a":1}\r\n\t[2] \n'))).toEqual([{ a: 1 }, [2]]);
  });
  it("knows that a message is not whole yet", () => {
    const splitter = new JsonSplitter();
    expect(splitter.push(Buffer.from('{"a":"}'))).toEqual([]);
    expect(splitter.pending).toBe(true);
  });
  it.each([
    ["text where an object should be", "HTTP/1.1 400", /byte 0x48/],
    ["a bracket closed that was never opened", "}", /closed a bracket/],
    ["brackets without JSON in them", "{nonsense}", /not JSON/],
    ["brackets that do not match", '{"a":]}}', /not JSON/],
  ])("refuses %s", (_, text, message) => {
    expect(() => new JsonSplitter().push(Buffer.from(text))).toThrow(WireError);
    expect(() => new JsonSplitter().push(Buffer.from(text))).toThrow(message);
  });
  it("refuses a message that never ends", () => {
    const splitter = new JsonSplitter(10);
    expect(() => splitter.push(Buffer.from('{"a":"0123456789'))).toThrow(/more than 10 bytes/);
  });
});
