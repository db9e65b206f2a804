import { describe, expect, it } from "vitest";
import { parseEvent, splitLines } from "./watch.ts";

async function* chunks(...parts: (string | Buffer)[]): AsyncGenerator<Buffer> {
  for (const part of parts) yield Buffer.from(part);
}

const collect = async (source: AsyncIterable<string>): Promise<string[]> => {
  const lines: string[] = [];
  for await (const line of source) lines.push(line);
  return lines;
};

const snowman = Buffer.from("☃");

describe.each<[string, (string | Buffer)[], string[]]>([
  ["one per chunk", ["a\n", "b\n"], ["a", "b"]],
  ["joined", ["a\nb\nc\n"], ["a", "b", "c"]],
  ["split anywhere", ["a", "b\nc", "", "d", "\n"], ["ab", "cd"]],
  [
    "split within a character",
    [Buffer.concat([Buffer.from("x"), snowman.subarray(0, 1)]), Buffer.concat([snowman.subarray(1), Buffer.from("\n")])],
    ["x☃"],
  ],
  ["an unfinished end", ["a\nb"], ["a"]],
  ["empty lines", ["\n\na\n"], ["a"]],
])("lines: %s", (_, parts, lines) => {
  it("come whole", async () => expect(await collect(splitLines(chunks(...parts)))).toEqual(lines));
});

describe("events", () => {
  const pod = { kind: "Pod", metadata: { name: "a", resourceVersion: "7" } };
  it("carry objects", () =>
    expect(parseEvent("watch pods", JSON.stringify({ type: "ADDED", object: pod }))).toEqual({ type: "ADDED", object: pod }));
  it("bookmarks carry a version", () =>
    expect(parseEvent("watch pods", JSON.stringify({ type: "BOOKMARK", object: pod }))).toEqual({
      type: "BOOKMARK",
      resourceVersion: "7",
    }));
  it("an ERROR is thrown with the server's words", () => {
    const status = { kind: "Status", code: 410, reason: "Expired", message: "too old resource version: 1 (9)" };
    expect(() => parseEvent("watch pods", JSON.stringify({ type: "ERROR", object: status }))).toThrow(
      expect.objectContaining({ code: 410, isExpired: true, message: "watch pods: too old resource version: 1 (9)" }),
    );
  });
  it("a type of a newer server is passed over", () =>
    expect(parseEvent("watch pods", JSON.stringify({ type: "RENAMED", object: pod }))).toBeUndefined());
  it("what is no JSON is shown", () => expect(() => parseEvent("watch pods", "<html>")).toThrow("watch pods: not JSON: <html>"));
});
