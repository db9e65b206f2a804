/** Who gets a certificate for what. Pure. */
import { certificateProfiles, NODE_SIGNER, type CertificateRole } from "../../crds/certificates.ts";
import type { CertificateSigningRequest } from "../../kube/index.ts";
import type { RequestFacts } from "./request.ts";

/** Set by the API server from the token of a pod that is bound to a node. */
const NODE_OF_TOKEN = "authentication.kubernetes.io/node-name";

export type Judgement = { grant: { node: string; role: CertificateRole } } | { deny: { reason: string; message: string } };

const deny = (reason: string, message: string): Judgement => ({ deny: { reason, message } });

const same = (one: readonly string[], other: readonly string[]): boolean =>
  one.length === other.length && new Set(one).size === one.length && one.every((item) => other.includes(item));

/**
 * Grants exactly what a profile says to exactly the node in the requester's token.
 * @param namespace Drover's own
 * @param read what stands in the request, or why it cannot be read
 */
export function judge(request: CertificateSigningRequest, read: RequestFacts | Error, namespace: string): Judgement {
  const { spec } = request;
  if (spec.signerName !== NODE_SIGNER) return deny("OtherSigner", `this signer signs for ${NODE_SIGNER} only`);
  const roles = Object.keys(certificateProfiles) as CertificateRole[];
  const role = roles.find(
    (one) => spec.username === `system:serviceaccount:${namespace}:${certificateProfiles[one].serviceAccount}`,
  );
  if (role === undefined)
    return deny("NotAnAgent", `${spec.username ?? "nobody"} is no agent of Drover; only its agents get certificates of nodes`);
  const profile = certificateProfiles[role];
  const nodes = spec.extra?.[NODE_OF_TOKEN] ?? [];
  const [node] = nodes;
  if (node === undefined || nodes.length !== 1)
    return deny("NoNode", "the requester's token belongs to no node: ask with the token that is mounted into the agent's pod");
  if (!same(spec.usages ?? [], profile.usages))
    return deny("WrongUsages", `the usages must be ${profile.usages.join(", ")}, not ${(spec.usages ?? []).join(", ")}`);
  if (read instanceof Error) return deny("Unreadable", `the request cannot be read: ${read.message}`);
  // A longer name does not fit there: then the alternative name must do.
  if (read.commonName !== node && !(read.commonName === "" && node.length > 64))
    return deny(
      "WrongNode",
      `the requester is on node ${node}, so the subject must be the one common name ${node}, not ${read.commonName || "something else"}`,
    );
  const name = profile.dnsName(node);
  if (!same(read.dnsNames ?? [], [name]))
    return deny("WrongNames", `the one alternative name must be ${name}, not ${read.dnsNames?.join(", ") ?? "something else"}`);
  if (read.otherExtensions.length > 0)
    return deny("WrongExtensions", `the request asks for extensions that nobody gets: ${read.otherExtensions.join(", ")}`);
  return { grant: { node, role } };
}

/** What remains to be done about a request. */
export type NextStep = "nothing" | "decide" | "sign";

/** From its status alone: what was denied, failed or signed is done with. */
export function nextStep({ status }: CertificateSigningRequest): NextStep {
  const has = (type: string): boolean => status?.conditions?.some((one) => one.type === type && one.status === "True") === true;
  if (status?.certificate !== undefined || has("Denied") || has("Failed")) return "nothing";
  return has("Approved") ? "sign" : "decide";
}
