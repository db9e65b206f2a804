/** Certificates of nodes: the chart's rights and policies on a real API server, the operator's signer, an agent's identity. */
import { X509Certificate } from "node:crypto";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { execa } from "execa";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import { certificateProfiles, NODE_SIGNER, type CertificateRole } from "../../crds/certificates.ts";
import {
  errorText,
  FakeClock,
  KubeClient,
  realClock,
  resources,
  silentLogger,
  type CertificateSigningRequest,
  type Clock,
  type Secret,
} from "../../kube/index.ts";
import type { IdentityMaterial } from "../../node-agent/identity/certificate.ts";
import { RenewedIdentity } from "../../node-agent/identity/identity.ts";
import { askForCertificate, makeRequest, requestName } from "../../node-agent/identity/request.ts";
import { certificateController } from "../../operator/certificates/controller.ts";
import { installChart, NAMESPACE, type Installed } from "./chart-kit.ts";

let installed: Installed;
let admin: KubeClient;
let directory: string;
let operator: { stop: () => Promise<void> };
const requests = resources.certificateSigningRequests;

const clientWith = async (token: string, userAgent: string): Promise<KubeClient> => {
  const { server, pki } = installed.plane;
  const ca = (await readFile(pki.ca)).toString("base64");
  return KubeClient.fromKubeconfig(
    JSON.stringify({
      apiVersion: "v1",
      kind: "Config",
      clusters: [{ name: "c", cluster: { server, "certificate-authority-data": ca } }],
      users: [{ name: "u", user: { token } }],
      contexts: [{ name: "x", context: { cluster: "c", user: "u" } }],
      "current-context": "x",
    }),
    { userAgent },
  );
};

/** As a pod of this account on this node. */
const on = async (node: string, account: string): Promise<KubeClient> => {
  const name = `${account}-${node}`;
  const spec = { nodeName: node, serviceAccountName: account, containers: [{ name: "one", image: "none" }] };
  await installed.kubectl.accepted(["apply", "-n", NAMESPACE, "-f", "-"], {
    apiVersion: "v1",
    kind: "Pod",
    metadata: { name },
    spec,
  });
  const bound = ["--bound-object-kind", "Pod", "--bound-object-name", name];
  return clientWith(await installed.kubectl.accepted(["create", "token", account, "-n", NAMESPACE, ...bound]), account);
};

const startOperator = async (clock: Clock = realClock): Promise<{ stop: () => Promise<void> }> => {
  const token = await installed.kubectl.accepted(["create", "token", "drover-operator", "-n", NAMESPACE]);
  const client = await clientWith(token, "drover-operator");
  const stop = new AbortController();
  const settings = { directory, validMs: 14 * 24 * 3600_000, namespace: NAMESPACE };
  const running = certificateController({ client, clock, log: silentLogger, settings }).start(stop.signal);
  return {
    stop: async () => {
      stop.abort();
      await running;
    },
  };
};

beforeAll(async () => {
  installed = await installChart();
  admin = KubeClient.fromKubeconfig(await readFile(installed.plane.kubeconfig, "utf8"), { userAgent: "drover-test" });
  directory = await mkdtemp(join(tmpdir(), "drover-authority-"));
  const secret = await admin.get<Secret>(resources.secrets, { namespace: NAMESPACE, name: "drover-agent-ca" });
  for (const [name, value] of Object.entries(secret?.data ?? {}))
    await writeFile(join(directory, name), Buffer.from(value, "base64"), { mode: 0o600 });
  operator = await startOperator();
});
afterAll(async () => {
  await operator?.stop();
  await installed?.stop();
  if (directory) await rm(directory, { recursive: true, force: true });
});

const ask = (client: KubeClient, node: string, role: CertificateRole): Promise<IdentityMaterial> =>
  askForCertificate({ client, node, role, authority: "", log: silentLogger }, AbortSignal.timeout(20_000));

/** Any request, however wrong, made by `client`; how it ended. */
const made = async (
  client: KubeClient,
  request: string,
  spec: Partial<CertificateSigningRequest["spec"]> = {},
): Promise<CertificateSigningRequest> => {
  const name = requestName("agent", request);
  await client.create(requests, {
    apiVersion: "certificates.k8s.io/v1",
    kind: "CertificateSigningRequest",
    metadata: { name },
    spec: {
      request: Buffer.from(request).toString("base64"),
      signerName: NODE_SIGNER,
      usages: [...certificateProfiles.agent.usages],
      ...spec,
    },
  });
  return ended(name);
};

const ended = (name: string): Promise<CertificateSigningRequest> =>
  vi.waitFor(
    async () => {
      const found = await admin.get(requests, { name });
      const refused = found?.status?.conditions?.some(({ type }) => type !== "Approved");
      if (!found || (refused !== true && found.status?.certificate === undefined)) throw new Error(`${name} waits`);
      return found;
    },
    { timeout: 20_000, interval: 100 },
  );

/** The one request that nobody answered yet. */
const whoAsks = (): Promise<CertificateSigningRequest> =>
  vi.waitFor(
    async () => {
      const [found] = (await admin.list(requests)).filter(({ status }) => status?.conditions === undefined);
      if (!found) throw new Error("nobody asks");
      return found;
    },
    { timeout: 10_000, interval: 100 },
  );

const refusal = ({ status }: CertificateSigningRequest): string => {
  if (status?.certificate !== undefined) return "signed";
  const found = status?.conditions?.find(({ type }) => type !== "Approved");
  return `${found?.type} ${found?.reason}`;
};

/** A request with a subject and names of one's own. */
const crafted = async (subject: string, names: string): Promise<string> => {
  const curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-noenc", "-keyout", "/dev/null"];
  const args = ["req", "-new", ...curve, "-subj", subject, "-addext", `subjectAltName=${names}`];
  return (await execa("openssl", args, { timeout: 30_000 })).stdout;
};

describe("a node's certificate", () => {
  it("is given to the agent and to the switch of that node", async () => {
    const agent = await ask(await on("n1", "drover-agent"), "n1", "agent");
    expect(new X509Certificate(agent.cert)).toMatchObject({ subject: "CN=n1", subjectAltName: "DNS:n1.node.drover.dev" });
    const chassis = await ask(await on("n2", "drover-ovs"), "n2", "chassis");
    expect(new X509Certificate(chassis.cert)).toMatchObject({ subject: "CN=n2", subjectAltName: "DNS:n2.chassis.drover.dev" });
    // The ConfigMap that OVN trusts is the authority that signed.
    const config = await admin.get(resources.configMaps, { namespace: NAMESPACE, name: "drover-agent-ca" });
    expect(agent.ca).toBe(config?.data?.["ca.crt"]);
  });

  it("says who asked and why it was given", async () => {
    const client = await on("n1", "drover-agent");
    const { request } = await makeRequest("n1", "agent");
    const { status } = await made(client, request);
    expect(status?.conditions).toMatchObject([
      { type: "Approved", reason: "NodeProven", message: "the token of the agent proves that it is on node n1" },
    ]);
  });

  it.each<[string, string, () => Promise<string>, Partial<CertificateSigningRequest["spec"]>, string]>([
    ["another node's name", "drover-agent", () => crafted("/CN=n2", "DNS:n2.node.drover.dev"), {}, "Denied WrongNode"],
    [
      "a group beside the name",
      "drover-agent",
      () => crafted("/O=system:masters/CN=n1", "DNS:n1.node.drover.dev"),
      {},
      "Denied WrongNode",
    ],
    [
      "a further name",
      "drover-agent",
      () => crafted("/CN=n1", "DNS:n1.node.drover.dev,DNS:n2.node.drover.dev"),
      {},
      "Denied WrongNames",
    ],
    ["an address", "drover-agent", () => crafted("/CN=n1", "DNS:n1.node.drover.dev,IP:10.0.0.1"), {}, "Denied WrongNames"],
    ["an agent's as a switch", "drover-ovs", () => crafted("/CN=n1", "DNS:n1.node.drover.dev"), {}, "Denied WrongUsages"],
    [
      "more usages",
      "drover-agent",
      () => crafted("/CN=n1", "DNS:n1.node.drover.dev"),
      { usages: ["digital signature", "client auth", "server auth", "code signing"] },
      "Denied WrongUsages",
    ],
  ])("is refused to one that asks for %s", async (_, account, request, spec, expected) => {
    const client = await on("n1", account);
    expect(refusal(await made(client, await request(), spec))).toBe(expected);
  });

  it("is refused to everybody else, and to an agent's account outside of its pod", async () => {
    const { request } = await makeRequest("n1", "agent");
    expect(refusal(await made(admin, request))).toBe("Denied NotAnAgent");
    const token = await installed.kubectl.accepted(["create", "token", "drover-agent", "-n", NAMESPACE]);
    const nowhere = await clientWith(token, "nowhere");
    await expect(ask(nowhere, "n1", "agent")).rejects.toThrow("this token belongs to no node");
  });

  it("is refused although somebody approved it", async () => {
    await operator.stop();
    const wrong = await crafted("/CN=n2", "DNS:n2.node.drover.dev");
    const name = requestName("agent", wrong);
    const waiting = made(await on("n1", "drover-agent"), wrong);
    await vi.waitFor(() => installed.kubectl.accepted(["certificate", "approve", name]), { timeout: 10_000, interval: 100 });
    operator = await startOperator();
    expect(refusal(await waiting)).toBe("Failed WrongNode");
  });

  it("is given by an operator that comes later, and to the one who waited", async () => {
    await operator.stop();
    const waiting = ask(await on("n1", "drover-agent"), "n1", "agent");
    await whoAsks();
    operator = await startOperator();
    expect(new X509Certificate((await waiting).cert).subject).toBe("CN=n1");
  });

  it("is not given by an operator that has not got the authority that the requester was told of", async () => {
    const client = await on("n1", "drover-agent");
    const asking = { client, node: "n1", role: "agent" as const, authority: "new", log: silentLogger };
    const waiting = askForCertificate(asking, AbortSignal.timeout(30_000));
    const { name } = (await whoAsks()).metadata;
    // An older node's request, made later, is answered meanwhile.
    await ask(client, "n1", "agent");
    expect((await admin.get(requests, { name }))?.status?.conditions).toBeUndefined();
    await writeFile(join(directory, "authorities.json"), JSON.stringify(["new", ""]));
    expect(new X509Certificate((await waiting).cert).subject).toBe("CN=n1");
    await ask(client, "n1", "agent");
  });

  it("tells the one who waits why it was refused, and that its request was deleted", async () => {
    const client = await on("n1", "drover-agent");
    await expect(ask(client, "n2", "agent")).rejects.toThrow(
      /was refused \(WrongNode\): the requester is on node n1, so the subject must be the one common name n1, not n2/,
    );
    await operator.stop();
    const waiting = ask(client, "n1", "agent").then(
      () => "signed",
      (error: unknown) => errorText(error),
    );
    const { name } = (await whoAsks()).metadata;
    await admin.delete(requests, { name });
    expect(await waiting).toContain("was deleted before anybody signed it; does the operator run?");
    operator = await startOperator();
  });
});

describe("an agent", () => {
  it("renews its certificate after two thirds of its life, with another key", async () => {
    const client = await on("n1", "drover-agent");
    const clock = new FakeClock(Date.now());
    const stop = new AbortController();
    const identity = new RenewedIdentity({
      ask: (signal) => askForCertificate({ client, node: "n1", role: "agent", authority: "", log: silentLogger }, signal),
      clock,
      log: silentLogger,
      random: () => 0,
    });
    const running = identity.run(stop.signal);
    const first = await identity.ready(AbortSignal.timeout(20_000));
    const next = new Promise<IdentityMaterial>((resolve) => identity.onChange(resolve));
    await clock.advance(9 * 24 * 3600_000);
    expect(identity.current()).toBe(first);
    await clock.advance(24 * 3600_000);
    const second = await next;
    expect(second.key).not.toBe(first.key);
    expect(identity.current()).toBe(second);
    stop.abort();
    await running;
  });

  it("may ask this signer only, and neither approve nor sign", async () => {
    const client = await on("n1", "drover-agent");
    const { request } = await makeRequest("n1", "agent");
    const spec = { signerName: "kubernetes.io/kube-apiserver-client", usages: ["client auth"] };
    await expect(made(client, request, spec)).rejects.toThrow("may ask for certificates of the signer drover.dev/agent only");
    const one = (await admin.list(requests))[0];
    if (!one) throw new Error("there is no request");
    await expect(client.replace(requests, one, { subresource: "approval" })).rejects.toThrow("cannot update resource");
    await expect(client.replace(requests, one, { subresource: "status" })).rejects.toThrow("cannot update resource");
    await expect(client.get(resources.secrets, { namespace: NAMESPACE, name: "drover-agent-ca" })).rejects.toThrow("cannot get");
  });
});

describe("the operator", () => {
  it("may approve and sign for its own signer only, and reads no Secrets", async () => {
    const client = await clientWith(
      await installed.kubectl.accepted(["create", "token", "drover-operator", "-n", NAMESPACE]),
      "op",
    );
    const { request } = await makeRequest("n1", "agent");
    const other = await admin.create(requests, {
      apiVersion: "certificates.k8s.io/v1",
      kind: "CertificateSigningRequest",
      metadata: { name: "of-a-kubelet" },
      spec: {
        request: Buffer.from(request).toString("base64"),
        signerName: "kubernetes.io/kube-apiserver-client",
        usages: ["client auth"],
      },
    });
    const conditions = [{ type: "Approved", status: "True" as const, reason: "Test", message: "" }];
    const approve = client.replace(requests, { ...other, status: { conditions } }, { subresource: "approval" });
    await expect(approve).rejects.toThrow("not permitted to approve requests with signerName");
    const signed = { ...other, status: { conditions: [{ type: "Failed", status: "True" as const }] } };
    await expect(client.replace(requests, signed, { subresource: "status" })).rejects.toThrow("not permitted to sign requests");
    await expect(client.list(resources.secrets, { namespace: NAMESPACE })).rejects.toThrow("cannot list");
  });
});

describe("the authority", () => {
  it("is kept by an upgrade, and replaced on demand, trusted together with the one before", async () => {
    const read = async () => {
      const secret = await admin.get<Secret>(resources.secrets, { namespace: NAMESPACE, name: "drover-agent-ca" });
      return Object.fromEntries(Object.entries(secret?.data ?? {}).map(([k, v]) => [k, Buffer.from(v, "base64").toString()]));
    };
    const before = await read();
    await installed.upgrade("operator.cpuOvercommit=2");
    expect(await read()).toEqual(before);
    await installed.upgrade("certificates.renew=now");
    const after = await read();
    expect(after["tls.crt"]).not.toBe(before["tls.crt"]);
    expect([before["authorities.json"], after["authorities.json"]]).toEqual(['[""]', '["now",""]']);
    expect(after["ca.crt"]).toBe(`${after["tls.crt"]}${before["tls.crt"]}`);
    await installed.upgrade("certificates.renew=now");
    expect(await read()).toEqual(after);
  });
});
