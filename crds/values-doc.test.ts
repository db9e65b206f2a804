import { expect, it } from "vitest";
import { valuesDoc } from "../manifests/values-doc.ts";

const rows = (text: string): string[] =>
  valuesDoc(text)
    .split("\n")
    .filter((line) => line.startsWith("| `"));

it("tells every value with its default and the comment above it", () => {
  const text = [
    "# About the file.",
    "",
    "a:",
    "  # First line,",
    "  # second | line.",
    "  b: [1]",
    "# All of c.",
    "c: {x: 1}",
    "",
  ].join("\n");
  expect(rows(text)).toEqual(["| `a.b` | `[1]` | First line, second \\| line. |", '| `c` | `{"x":1}` | All of c. |']);
});
it("refuses a value that nobody explains", () => {
  expect(() => valuesDoc("a:\n  b: 1\n")).toThrow("say what a.b is, in a comment above it");
});
