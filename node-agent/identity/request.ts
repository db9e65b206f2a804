/** Getting a certificate: a new key, a request to the API server, and waiting for what the operator makes of it. */
import { createHash } from "node:crypto";
import { execa } from "execa";
import { AUTHORITY_ANNOTATION, certificateProfiles, NODE_SIGNER, type CertificateRole } from "../../crds/certificates.ts";
import { ApiError, Informer, resources, type CertificateSigningRequest, type KubeClient, type Logger } from "../../kube/index.ts";
import { readAnswer, type IdentityMaterial } from "./certificate.ts";

export interface Asking {
  client: KubeClient;
  node: string;
  role: CertificateRole;
  /** What the chart calls the present authority. */
  authority: string;
  log: Logger;
  /** How long it should be valid, seconds; the operator gives no more than its own setting. */
  expirationSeconds?: number | undefined;
}

/** X.509's own bound. */
const LONGEST_COMMON_NAME = 64;

/**
 * A key on the curve P-256 and a PKCS#10 request for it, both PEM. By openssl, which every agent's image has: it takes 20 ms a
 * week, where an ASN.1 library would take 10 MB for the whole life of the process. The key passes through a pipe only.
 */
export async function makeRequest(node: string, role: CertificateRole): Promise<{ key: string; request: string }> {
  // A node's name is a DNS name: it has nothing that means something in this file.
  if (!/^[a-z0-9.-]+$/.test(node)) throw new Error(`"${node}" is no name of a node`);
  const config = `[req]
distinguished_name = subject
req_extensions = extensions
[subject]
[extensions]
subjectAltName = DNS:${certificateProfiles[role].dnsName(node)}
`;
  const curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-noenc", "-sha256"];
  // Longer ones are not to be had from openssl: then the alternative name alone says it, and the operator writes the common name.
  const subject = node.length <= LONGEST_COMMON_NAME ? `/CN=${node}` : "/";
  const files = ["-subj", subject, "-keyout", "-", "-config", "-"];
  const { stdout } = await execa("openssl", ["req", "-new", "-utf8", ...curve, ...files], {
    input: config,
    timeout: 30_000,
    killSignal: "SIGKILL",
    // An error must not carry what was printed: a key may be in it.
    stderr: "ignore",
    reject: false,
  });
  const [key] = /-----BEGIN PRIVATE KEY-----[^-]+-----END PRIVATE KEY-----\n?/.exec(stdout) ?? [];
  const [request] = /-----BEGIN CERTIFICATE REQUEST-----[^-]+-----END CERTIFICATE REQUEST-----\n?/.exec(stdout) ?? [];
  if (key === undefined || request === undefined)
    throw new Error("openssl made no certificate request; it must be in the agent's image, version 3 or newer");
  return { key: `${key.trim()}\n`, request: `${request.trim()}\n` };
}

/** The request's name follows from what it asks: made again after a lost answer, it is the same one. */
export const requestName = (role: CertificateRole, request: string): string =>
  `drover-${role}-${createHash("sha256").update(request).digest("hex").slice(0, 20)}`;

/** A request that nobody signs is deleted by Kubernetes after a day. */
const DEADLINE_MS = 25 * 3600_000;

/**
 * Asks and waits for as long as the request exists.
 * Throws when it is denied, fails or is deleted; with a request and a key of its own each time, it may be repeated.
 */
export async function askForCertificate(asking: Asking, ended: AbortSignal): Promise<IdentityMaterial> {
  const signal = AbortSignal.any([ended, AbortSignal.timeout(DEADLINE_MS)]);
  const { client, node, role, log } = asking;
  const { key, request } = await makeRequest(node, role);
  const name = requestName(role, request);
  const done = new AbortController();
  // The watch begins before the request is made: what follows cannot be missed.
  const seen = new Informer(client, resources.certificateSigningRequests, {
    fieldSelector: `metadata.name=${name}`,
    logger: log,
  });
  const answer = Promise.withResolvers<string>();
  // Looked at only once the request is made; until then a rejection has nobody who waits for it.
  answer.promise.catch(() => undefined);
  const stop = AbortSignal.any([signal, done.signal]);
  const aborted = (): void => answer.reject(signal.reason);
  signal.addEventListener("abort", aborted, { once: true });
  seen.onChange(({ now }) => {
    try {
      const certificate = now === undefined ? gone(name) : answerOf(now);
      if (certificate !== undefined) answer.resolve(certificate);
    } catch (error) {
      answer.reject(error);
    }
  });
  try {
    signal.throwIfAborted();
    seen.start(stop);
    await create(asking, name, request);
    return readAnswer(await answer.promise, key, { node, role });
  } finally {
    signal.removeEventListener("abort", aborted);
    done.abort();
    await seen.stopped();
  }
}

async function create({ client, role, authority, expirationSeconds }: Asking, name: string, request: string): Promise<void> {
  try {
    await client.create(resources.certificateSigningRequests, {
      apiVersion: "certificates.k8s.io/v1",
      kind: "CertificateSigningRequest",
      metadata: { name, annotations: { [AUTHORITY_ANNOTATION]: authority } },
      spec: {
        request: Buffer.from(request).toString("base64"),
        signerName: NODE_SIGNER,
        usages: [...certificateProfiles[role].usages],
        ...(expirationSeconds === undefined ? {} : { expirationSeconds }),
      },
    });
  } catch (error) {
    // The answer to a first try was lost: the name says that it is ours.
    if (!(error instanceof ApiError && error.isConflict)) throw error;
  }
}

/** The certificate and its authority, PEM; undefined while there is no answer. Throws what was answered instead. */
function answerOf({ metadata, status }: CertificateSigningRequest): string | undefined {
  const refusal = status?.conditions?.find(({ type }) => type === "Denied" || type === "Failed");
  if (refusal !== undefined)
    throw new Error(
      `the certificate request ${metadata.name} was refused (${refusal.reason ?? refusal.type}): ${refusal.message ?? ""}`,
    );
  return status?.certificate === undefined ? undefined : Buffer.from(status.certificate, "base64").toString("utf8");
}

const gone = (name: string): never => {
  throw new Error(`the certificate request ${name} was deleted before anybody signed it; does the operator run?`);
};
