import { describe, expect, test } from "vitest";
import { mirrorIn } from "./base.ts";

describe("mirrorIn", () => {
  test.each([
    ["deb822", "Types: deb\nURIs: http://mirror.example/debian\nSuites: bookworm", "http://mirror.example/debian"],
    ["one line", "deb http://mirror.example/debian/ bookworm main", "http://mirror.example/debian/"],
    [
      "one line with options",
      "deb [signed-by=/k.gpg arch=amd64] https://mirror.example/debian trixie main",
      "https://mirror.example/debian",
    ],
    ["security first", "URIs: http://a/debian-security\n\nURIs: http://b/debian", "http://b/debian"],
    ["somebody else's archive only", "deb https://packages.example/apt x main", undefined],
    ["a comment", "# deb http://a/debian x main", undefined],
  ])("%s", (_, text, mirror) => expect(mirrorIn(text)).toBe(mirror));
});
