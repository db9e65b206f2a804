import { X509Certificate } from "node:crypto";
import { mkdtemp, readFile, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { certificateFiles, extensionText, kubeconfigText, makePki, nodeCertificate, subject } from "./pki.ts";

describe("subjects and extensions", () => {
  it("names organization and name", () => {
    expect(subject(nodeCertificate("n1", "10.0.0.1"))).toBe("/O=system:nodes/CN=system:node:n1");
    expect(subject({ name: "a", commonName: "admin" })).toBe("/CN=admin");
  });
  it("refuses a name that would be read as another field", () =>
    expect(() => subject({ name: "a", commonName: "a/O=system:masters" })).toThrow('must not contain "/"'));
  it("has other names only where there are some", () => {
    expect(extensionText({ name: "a", commonName: "a" })).not.toContain("subjectAltName");
    expect(extensionText(nodeCertificate("n1", "10.0.0.1"))).toContain("subjectAltName=IP:10.0.0.1,DNS:n1\n");
  });
});

describe("with openssl", () => {
  let directory: string;
  beforeEach(async () => {
    directory = await mkdtemp(path.join(tmpdir(), "drover-pki-"));
  });
  afterEach(() => rm(directory, { recursive: true, force: true }));

  it("makes certificates of its CA, and keeps those that are there", async () => {
    const wanted = [nodeCertificate("n1", "10.0.0.1"), { name: "admin", commonName: "admin", organization: "system:masters" }];
    const pki = await makePki(directory, wanted);
    const ca = new X509Certificate(await readFile(pki.ca));
    const node = new X509Certificate(await readFile(certificateFiles(pki, "node-n1").cert));
    expect(node.verify(ca.publicKey)).toBe(true);
    expect(node.checkIP("10.0.0.1")).toBe("10.0.0.1");
    expect(node.subject.split("\n").sort()).toEqual(["CN=system:node:n1", "O=system:nodes"]);
    const before = await kubeconfigText(pki, "admin", "https://10.0.0.1:6443");
    await makePki(directory, wanted);
    expect(await kubeconfigText(pki, "admin", "https://10.0.0.1:6443")).toBe(before);
    expect((await readdir(directory)).filter((file) => !/\.(crt|key)$/.test(file))).toEqual([]);
  });
});
