/** Approves or denies what the nodes ask for, and signs it. */
import { randomBytes } from "node:crypto";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import { AUTHORITY_ANNOTATION, NODE_SIGNER } from "../../crds/certificates.ts";
import {
  Controller,
  errorText,
  Informer,
  resources,
  type CertificateSigningRequest,
  type Clock,
  type KubeClient,
  type Logger,
  type ObjectKey,
  type Requeue,
} from "../../kube/index.ts";
import type { Authority } from "./authority.ts";
import type { RequestFacts } from "./request.ts";
import { judge, nextStep } from "./rules.ts";

export interface CertificateSettings {
  /** Where tls.crt, tls.key, ca.crt and authorities.json (its name, and the one before) of the authority lie. */
  directory: string;
  /** How long a certificate is valid, ms. */
  validMs: number;
  /** Drover's own namespace. */
  namespace: string;
}

export interface CertificateContext {
  client: KubeClient;
  clock: Clock;
  log: Logger;
  settings: CertificateSettings;
  requests: Pick<Informer<CertificateSigningRequest>, "get">;
}

const names = z.array(z.string());

/** A shorter life is given to whom asks for it, as Kubernetes' own signers do. */
const SHORTEST_MS = 10 * 60_000;

/** How long a request of a newer authority waits for our own files to be that one's, ms. */
const BEHIND_MS = 5_000;

type Condition = NonNullable<NonNullable<CertificateSigningRequest["status"]>["conditions"]>[number];

/**
 * One request: denied with a reason, or approved and signed. What somebody else approved is judged all the same. Repeatable;
 * a request whose certificate is there is left alone.
 */
export async function reconcileRequest(key: ObjectKey, ctx: CertificateContext): Promise<Requeue | void> {
  let request = ctx.requests.get(key);
  if (request === undefined || nextStep(request) === "nothing") return undefined;
  const read = await readSafely(request);
  const judgement = judge(request, read, ctx.settings.namespace);
  const asked = { request: key.name, by: request.spec.username };
  if ("deny" in judgement) {
    const { reason, message } = judgement.deny;
    // One that was approved by somebody cannot be denied any more.
    if (nextStep(request) === "sign") await fail(request, reason, message, ctx);
    else await decide(request, "Denied", reason, message, ctx);
    ctx.log.warn({ ...asked, reason }, `a certificate is refused: ${message}`);
    return undefined;
  }
  const { node, role } = judgement.grant;
  if (read instanceof Error) throw read;
  const wanted = request.metadata.annotations?.[AUTHORITY_ANNOTATION] ?? "";
  if (!(await knownAuthorities(ctx.settings.directory)).includes(wanted)) {
    ctx.log.info({ ...asked, wanted }, "a certificate waits for an operator with a newer authority");
    return { afterMs: BEHIND_MS };
  }
  if (nextStep(request) === "decide")
    request = await decide(request, "Approved", "NodeProven", `the token of the ${role} proves that it is on node ${node}`, ctx);
  const authority = await openAuthority(ctx.settings.directory);
  const askedMs = (request.spec.expirationSeconds ?? Number.POSITIVE_INFINITY) * 1000;
  const validMs = Math.min(ctx.settings.validMs, Math.max(SHORTEST_MS, askedMs));
  const certificate = authority.issue({
    node,
    role,
    publicKey: read.publicKey,
    validMs,
    now: ctx.clock.now(),
    serial: randomBytes(16),
  });
  await writeStatus(request, { ...request.status, certificate: Buffer.from(certificate).toString("base64") }, "status", ctx);
  ctx.log.info({ ...asked, node, role, hours: Math.round(validMs / 360_000) / 10 }, "a node has its certificate");
  return undefined;
}

/** The controller and the cache of requests that it works on. Runs until the signal aborts. */
export function certificateController(parts: Omit<CertificateContext, "requests">): {
  start: (signal: AbortSignal) => Promise<void>;
} {
  const { client, clock, log } = parts;
  const requests = new Informer(client, resources.certificateSigningRequests, {
    fieldSelector: `spec.signerName=${NODE_SIGNER}`,
    logger: log,
  });
  const controller = new Controller({
    name: "certificates",
    workers: 2,
    reconcile: (key) => reconcileRequest(key, { ...parts, requests }),
    clock,
    logger: log,
  }).watch(requests);
  return {
    start: async (signal) => {
      requests.start(signal);
      await controller.start(signal);
      await requests.stopped();
    },
  };
}

async function readSafely({ spec }: CertificateSigningRequest): Promise<RequestFacts | Error> {
  const { readRequest } = await import("./request.ts");
  try {
    return readRequest(Buffer.from(spec.request, "base64").toString("utf8"));
  } catch (error) {
    return error instanceof Error ? error : new Error(errorText(error));
  }
}

/** The name of the authority that we sign with, and of the one before. */
const knownAuthorities = async (directory: string): Promise<string[]> =>
  names.parse(JSON.parse(await readFile(join(directory, "authorities.json"), "utf8")));

/** Read anew each time: the kubelet replaces the files when the authority is renewed. */
async function openAuthority(directory: string): Promise<Authority> {
  const { Authority: Opened } = await import("./authority.ts");
  const [cert, key, trusted] = await Promise.all(
    ["tls.crt", "tls.key", "ca.crt"].map((file) => readFile(join(directory, file), "utf8")),
  );
  return new Opened({ cert: cert ?? "", key: key ?? "", trusted: trusted ?? "" });
}

const decide = (
  request: CertificateSigningRequest,
  type: "Approved" | "Denied",
  reason: string,
  message: string,
  ctx: CertificateContext,
): Promise<CertificateSigningRequest> =>
  writeStatus(request, withCondition(request, { type, status: "True", reason, message }), "approval", ctx);

const fail = (request: CertificateSigningRequest, reason: string, message: string, ctx: CertificateContext) =>
  writeStatus(request, withCondition(request, { type: "Failed", status: "True", reason, message }), "status", ctx);

const withCondition = ({ status }: CertificateSigningRequest, condition: Condition) => ({
  ...status,
  conditions: [...(status?.conditions ?? []), condition],
});

const writeStatus = (
  request: CertificateSigningRequest,
  status: CertificateSigningRequest["status"] & {},
  subresource: "approval" | "status",
  { client }: CertificateContext,
): Promise<CertificateSigningRequest> =>
  client.replace(resources.certificateSigningRequests, { ...request, status }, { subresource });
