/** Reading certificates of nodes: whose one is, until when, and when its renewal is due. Pure. */
import { createPrivateKey, X509Certificate } from "node:crypto";
import { certificateProfiles, type CertificateRole } from "../../crds/certificates.ts";

/** All PEM. `ca`: what its holder trusts, one certificate or more. */
export interface IdentityMaterial {
  key: string;
  cert: string;
  ca: string;
}

export interface Validity {
  /** ms since 1970 */
  from: number;
  to: number;
}

export const validityOf = (cert: string): Validity => {
  const { validFrom, validTo } = new X509Certificate(cert);
  return { from: Date.parse(validFrom), to: Date.parse(validTo) };
};

/** Nodes that got theirs together do not renew together: the last of it comes by so much of its life earlier. */
const SPREAD = 0.05;

/** When a certificate is to be renewed: after two thirds of its life, a little earlier by chance. @param random 0..1 */
export const renewAt = ({ from, to }: Validity, random: number): number => from + (to - from) * (2 / 3 - SPREAD * random);

/** The node that a certificate was given to for this role; undefined when it is any other kind of certificate. */
export function nodeOf(cert: X509Certificate, role: CertificateRole): string | undefined {
  const node = /^CN=([^\n+]+)$/.exec(cert.subject)?.[1];
  if (node === undefined || cert.subjectAltName !== `DNS:${certificateProfiles[role].dnsName(node)}`) return undefined;
  return node;
}

const BLOCK = /-----BEGIN CERTIFICATE-----[A-Za-z0-9+/=\s]+-----END CERTIFICATE-----/g;

/**
 * What a signer answered, split into the certificate and what it brings to trust.
 * Throws when it is not for this key, node and role, or not signed by what it brings.
 */
export function readAnswer(chain: string, key: string, want: { node: string; role: CertificateRole }): IdentityMaterial {
  const [own, ...trusted] = chain.match(BLOCK) ?? [];
  if (own === undefined || trusted.length === 0)
    throw new Error("the signer's answer must be a certificate, followed by its authority's");
  const cert = new X509Certificate(own);
  if (!cert.checkPrivateKey(createPrivateKey(key))) throw new Error("the signer's certificate is for another key");
  if (nodeOf(cert, want.role) !== want.node)
    throw new Error(
      `the signer's certificate is for ${cert.subject}, ${cert.subjectAltName ?? "no names"}; not for ${want.node}`,
    );
  if (!trusted.some((one) => cert.verify(new X509Certificate(one).publicKey)))
    throw new Error("the signer's certificate is not signed by the authority that came with it");
  return { key, cert: `${own}\n`, ca: `${trusted.join("\n")}\n` };
}
