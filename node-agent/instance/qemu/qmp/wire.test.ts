import { describe, expect, test } from "vitest";
import { encode, LineDecoder } from "./wire.ts";

const text = '{"QMP":{"v":1}}\r\n\r\n{"event":"STOP","ü":"\\u00fc€"}\n{"return":{}}\n';
const messages = [{ QMP: { v: 1 } }, { event: "STOP", ü: "ü€" }, { return: {} }];

describe("LineDecoder", () => {
  test.each([1, 2, 3, 7, 1000])("reads of %i bytes give the same messages", (size) => {
    const decoder = new LineDecoder();
    const bytes = Buffer.from(text);
    const seen: unknown[] = [];
    for (let at = 0; at < bytes.length; at += size) seen.push(...decoder.push(bytes.subarray(at, at + size)));
    expect(seen).toEqual(messages);
  });

  test("what lies before the guest agent's mark is dropped", () => {
    const decoder = new LineDecoder();
    expect(decoder.push(Buffer.concat([Buffer.from('{"half'), Buffer.from([0xff]), Buffer.from('{"return":5}\n')]))).toEqual([
      { return: 5 },
    ]);
  });

  test.each([
    ["no JSON", "hello\n", "not JSON: hello"],
    ["no object", "[1]\n", "not a JSON object: [1]"],
    ["an endless line", "x".repeat(65), "a line of more than 64 bytes"],
  ])("%s is an error", (_, input, message) => {
    expect(() => new LineDecoder(64).push(Buffer.from(input))).toThrow(message);
  });

  test("a message is one line", () => {
    expect(encode({ execute: "stop", id: 1, text: "a\nb" })).toBe('{"execute":"stop","id":1,"text":"a\\nb"}\n');
  });
});
