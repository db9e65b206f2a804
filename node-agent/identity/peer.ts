/** How agents know each other: both ends show a certificate, and each looks whose it is. */
import { X509Certificate } from "node:crypto";
import type { ConnectionOptions, PeerCertificate, TLSSocket, TlsOptions } from "node:tls";
import { certificateProfiles } from "../../crds/certificates.ts";
import { UserError } from "../errors.ts";
import { nodeOf, type IdentityMaterial } from "./certificate.ts";

/**
 * For a TLS server, and for its `setSecureContext` when the certificate is new. Who shows no certificate of a node, or an
 * expired one, does not get in; whose it is tells `peerNode`.
 */
export const peerServerOptions = ({ key, cert, ca }: IdentityMaterial): TlsOptions => ({
  key,
  cert,
  ca,
  minVersion: "TLSv1.3",
  requestCert: true,
  rejectUnauthorized: true,
});

/** Why TLS let nobody in, for the server's `tlsClientError`, whose own error does not say it. */
export const peerRefusal = (error: Error, socket: TLSSocket): string =>
  // oxlint-disable-next-line typescript/no-unnecessary-condition -- its type leaves out that it may be null
  socket.authorizationError ? `the other end's certificate is not trusted: ${String(socket.authorizationError)}` : error.message;

/** For a TLS connection to the agent of `node`, whatever its address: any other certificate ends the handshake. */
export const peerClientOptions = ({ key, cert, ca }: IdentityMaterial, node: string): ConnectionOptions => ({
  key,
  cert,
  ca,
  minVersion: "TLSv1.3",
  rejectUnauthorized: true,
  servername: certificateProfiles.agent.dnsName(node),
  checkServerIdentity: (_: string, { raw }: PeerCertificate) => {
    const found = nodeOf(new X509Certificate(raw), "agent");
    return found === node ? undefined : new UserError("OtherPeer", otherPeer(node, found));
  },
});

/**
 * The node whose agent is at the other end; with `expected`, that node or an error.
 * Throws UserError when the other end proved nothing: no certificate, an expired or a foreign one, or that of a switch.
 * @param now ms since 1970: a resumed session is not checked by TLS itself
 */
export function peerNode(socket: TLSSocket, now: number, expected?: string): string {
  const cert = socket.getPeerX509Certificate();
  if (cert === undefined)
    throw new UserError("UnknownPeer", "the other end showed no certificate; only agents of nodes may connect");
  if (!socket.authorized)
    throw new UserError("UnknownPeer", `the other end's certificate is not trusted: ${String(socket.authorizationError)}`);
  if (now < Date.parse(cert.validFrom) || now >= Date.parse(cert.validTo))
    throw new UserError(
      "UnknownPeer",
      `the other end's certificate is valid from ${cert.validFrom} to ${cert.validTo} only; are the nodes' clocks right, and does the operator run?`,
    );
  const node = nodeOf(cert, "agent");
  if (node === undefined)
    throw new UserError(
      "UnknownPeer",
      `the other end's certificate (${cert.subject}) is no node agent's; only agents may connect`,
    );
  if (expected !== undefined && node !== expected) throw new UserError("OtherPeer", otherPeer(expected, node));
  return node;
}

const otherPeer = (expected: string, found: string | undefined): string =>
  `the agent of node ${expected} was expected, but the other end is ${found === undefined ? "no agent" : `that of node ${found}`}`;
