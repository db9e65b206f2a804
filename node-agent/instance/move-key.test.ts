import { getDiffieHellman } from "node:crypto";
import { describe, expect, it } from "vitest";
import { keyFiles } from "./move-key.ts";

const secret = { identity: "move-1", key: "0f".repeat(32) };

describe("the files of a move's key", () => {
  it("are the key, and parameters that are a group of RFC 3526 in PKCS #3", () => {
    const [key, parameters] = keyFiles(secret);
    expect(key).toEqual({ name: "keys.psk", content: `move-1:${secret.key}\n` });
    expect(parameters?.name).toBe("dh-params.pem");
    const [, body = ""] =
      /^-----BEGIN DH PARAMETERS-----\n([^-]+)\n-----END DH PARAMETERS-----\n$/.exec(parameters?.content ?? "") ?? [];
    const prime = getDiffieHellman("modp14").getPrime("hex");
    // SEQUENCE { INTEGER of 257 bytes, the first of them 0; INTEGER 2 }
    expect(Buffer.from(body, "base64").toString("hex")).toBe(`308201080282010100${prime}020102`);
  });

  it.each([
    ["a name with a line of its own", { ...secret, identity: "a\nb" }],
    ["a name with what ends it", { ...secret, identity: "a:b" }],
    ["a short key", { ...secret, key: "0f".repeat(8) }],
    ["a key that is no hex", { ...secret, key: "xy".repeat(32) }],
  ])("refuses %s", (_, bad) => expect(() => keyFiles(bad)).toThrow(TypeError));
});
