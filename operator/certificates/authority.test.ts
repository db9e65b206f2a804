import { randomBytes, X509Certificate } from "node:crypto";
import { beforeAll, describe, expect, it } from "vitest";
import { certificateProfiles, NODE_SIGNER, type CertificateRole } from "../../crds/certificates.ts";
import type { CertificateSigningRequest } from "../../kube/index.ts";
import { nodeOf, readAnswer } from "../../node-agent/identity/certificate.ts";
import { makeRequest } from "../../node-agent/identity/request.ts";
import { Authority, type AuthorityFiles } from "./authority.ts";
import { withAuthority } from "./fixtures.ts";
import { readRequest, type RequestFacts } from "./request.ts";
import { judge, nextStep } from "./rules.ts";

const NOW = Date.UTC(2026, 10, 23, 12);
const DAY = 24 * 3600_000;
let files: AuthorityFiles;
let other: AuthorityFiles;
let request: string;
let key: string;
let facts: RequestFacts;

beforeAll(async () => {
  [files, other] = await Promise.all([withAuthority((one) => one), withAuthority((one) => one)]);
  ({ key, request } = await makeRequest("n1", "agent"));
  facts = readRequest(request);
});

const grant = (role: CertificateRole = "agent", validMs = 14 * DAY) => ({
  node: "n1",
  role,
  publicKey: facts.publicKey,
  validMs,
  now: NOW,
  serial: randomBytes(16),
});

describe("readRequest", () => {
  it("reads what an agent asks", () => {
    expect(facts).toMatchObject({ commonName: "n1", dnsNames: ["n1.node.drover.dev"], otherExtensions: [] });
  });

  it.each([
    ["text", () => "hello", "one PEM block"],
    ["two requests", () => request + request, "one PEM block"],
    ["one that was changed after it was signed", () => tampered(), "not signed with its own key"],
    ["a certificate", () => files.cert, "one PEM block"],
  ])("refuses %s", (_, made, words) => {
    expect(() => readRequest(made())).toThrow(words);
  });
});

/** The same request for node n2. */
const tampered = (): string => {
  const der = Buffer.from(request.replaceAll(/-----.*-----|\n/g, ""), "base64");
  const at = der.indexOf("n1");
  der.write("n2", at);
  return `-----BEGIN CERTIFICATE REQUEST-----\n${der.toString("base64")}\n-----END CERTIFICATE REQUEST-----\n`;
};

describe("judge", () => {
  const asked = (spec: Partial<CertificateSigningRequest["spec"]> = {}): CertificateSigningRequest => ({
    apiVersion: "certificates.k8s.io/v1",
    kind: "CertificateSigningRequest",
    metadata: { name: "one" },
    spec: {
      request: "",
      signerName: NODE_SIGNER,
      usages: [...certificateProfiles.agent.usages],
      username: "system:serviceaccount:drover-system:drover-agent",
      extra: { "authentication.kubernetes.io/node-name": ["n1"] },
      ...spec,
    },
  });
  const told: RequestFacts = { commonName: "n1", dnsNames: ["n1.node.drover.dev"], otherExtensions: [], publicKey: Buffer.of() };
  const reason = (spec: Partial<CertificateSigningRequest["spec"]>, read: Partial<RequestFacts> | Error = {}): string => {
    const made = judge(asked(spec), read instanceof Error ? read : { ...told, ...read }, "drover-system");
    return "deny" in made ? made.deny.reason : `${made.grant.node} ${made.grant.role}`;
  };
  const chassis = { username: "system:serviceaccount:drover-system:drover-ovs", usages: ["client auth", "digital signature"] };

  it("grants an agent and a switch what is theirs", () => {
    expect(reason({})).toBe("n1 agent");
    expect(reason(chassis, { dnsNames: ["n1.chassis.drover.dev"] })).toBe("n1 chassis");
  });

  it.each<[string, Partial<CertificateSigningRequest["spec"]>, Partial<RequestFacts> | Error, string]>([
    ["another signer", { signerName: "kubernetes.io/kube-apiserver-client" }, {}, "OtherSigner"],
    ["a user", { username: "kubernetes-admin" }, {}, "NotAnAgent"],
    ["an account of that name elsewhere", { username: "system:serviceaccount:default:drover-agent" }, {}, "NotAnAgent"],
    ["the operator", { username: "system:serviceaccount:drover-system:drover-operator" }, {}, "NotAnAgent"],
    ["a token of no pod", { extra: {} }, {}, "NoNode"],
    ["a token of two nodes", { extra: { "authentication.kubernetes.io/node-name": ["n1", "n2"] } }, {}, "NoNode"],
    ["another node's name", {}, { commonName: "n2" }, "WrongNode"],
    ["no subject", {}, { commonName: "" }, "WrongNode"],
    ["more than one name, or another kind", {}, { commonName: undefined }, "WrongNode"],
    ["another node's alternative name", {}, { dnsNames: ["n2.node.drover.dev"] }, "WrongNames"],
    ["one name too many", {}, { dnsNames: ["n1.node.drover.dev", "n2.node.drover.dev"] }, "WrongNames"],
    ["the same name twice", {}, { dnsNames: ["n1.node.drover.dev", "n1.node.drover.dev"] }, "WrongNames"],
    ["an address", {}, { dnsNames: undefined }, "WrongNames"],
    ["an agent that asks for a switch's", {}, { dnsNames: ["n1.chassis.drover.dev"] }, "WrongNames"],
    ["a switch that asks for an agent's", chassis, {}, "WrongNames"],
    ["a switch that wants to be a server", { ...chassis, usages: [...certificateProfiles.agent.usages] }, {}, "WrongUsages"],
    ["the usage of an authority", { usages: ["digital signature", "client auth", "cert sign"] }, {}, "WrongUsages"],
    ["an extension", {}, { otherExtensions: ["2.5.29.19"] }, "WrongExtensions"],
    ["what is no request", {}, new Error("broken"), "Unreadable"],
  ])("denies %s", (_, spec, read, expected) => {
    expect(reason(spec, read)).toBe(expected);
  });

  it.each<[string, CertificateSigningRequest["status"], string]>([
    ["new", undefined, "decide"],
    ["approved by us or somebody", { conditions: [{ type: "Approved", status: "True" }] }, "sign"],
    ["denied", { conditions: [{ type: "Denied", status: "True" }] }, "nothing"],
    [
      "failed",
      {
        conditions: [
          { type: "Approved", status: "True" },
          { type: "Failed", status: "True" },
        ],
      },
      "nothing",
    ],
    ["signed", { conditions: [{ type: "Approved", status: "True" }], certificate: "x" }, "nothing"],
  ])("knows what remains of one that is %s", (_, status, expected) => {
    expect(nextStep({ ...asked(), ...(status === undefined ? {} : { status }) })).toBe(expected);
  });
});

describe("Authority", () => {
  it("issues what the profile says and nothing else", () => {
    const made = readAnswer(new Authority(files).issue(grant()), key, { node: "n1", role: "agent" });
    const cert = new X509Certificate(made.cert);
    expect(cert).toMatchObject({ subject: "CN=n1", subjectAltName: "DNS:n1.node.drover.dev", ca: false });
    expect(cert.keyUsage).toEqual(["1.3.6.1.5.5.7.3.2", "1.3.6.1.5.5.7.3.1"]);
    expect(Date.parse(cert.validFrom)).toBe(NOW - 300_000);
    expect(Date.parse(cert.validTo)).toBe(NOW + 14 * DAY);
    expect(cert.checkIssued(new X509Certificate(files.cert))).toBe(true);
    expect(made.ca).toBe(files.cert);
  });

  it("gives a switch no server's purpose, and an agent's name to nobody else", () => {
    const [own = ""] = new Authority(files).issue(grant("chassis")).split(/(?<=-----END CERTIFICATE-----\n)/);
    const cert = new X509Certificate(own);
    expect(cert.keyUsage).toEqual(["1.3.6.1.5.5.7.3.2"]);
    expect(nodeOf(cert, "chassis")).toBe("n1");
    expect(nodeOf(cert, "agent")).toBeUndefined();
  });

  it("issues nothing that outlives itself", () => {
    const { cert } = readAnswer(new Authority(files).issue(grant("agent", 20 * 365 * DAY)), key, { node: "n1", role: "agent" });
    expect(new X509Certificate(cert).validTo).toBe(new X509Certificate(files.cert).validTo);
  });

  it("lets nodes trust the authority before it too, while it is replaced", () => {
    const made = new Authority({ ...files, trusted: files.cert + other.cert }).issue(grant());
    expect(readAnswer(made, key, { node: "n1", role: "agent" }).ca).toBe(files.cert + other.cert);
  });

  it("refuses a key that is not its certificate's", () => {
    expect(() => new Authority({ ...files, key: other.key })).toThrow("set certificates.renew");
  });
});

describe("readAnswer", () => {
  it.each<[string, () => string, string]>([
    ["for another node", () => new Authority(files).issue({ ...grant(), node: "n2" }), "not for n1"],
    ["for another role", () => new Authority(files).issue(grant("chassis")), "not for n1"],
    ["of another authority", () => new Authority({ ...files, trusted: other.cert }).issue(grant()), "not signed by"],
    ["without an authority", () => new Authority({ ...files, trusted: "" }).issue(grant()), "followed by"],
  ])("refuses a certificate %s", (_, chain, words) => {
    expect(() => readAnswer(chain(), key, { node: "n1", role: "agent" })).toThrow(words);
  });

  it("refuses a certificate for another key", async () => {
    const { key: stranger } = await makeRequest("n1", "agent");
    expect(() => readAnswer(new Authority(files).issue(grant()), stranger, { node: "n1", role: "agent" })).toThrow("another key");
  });
});
