/** What the certificates of a node's two processes look like: they ask for exactly this, and the operator signs nothing else. */

/** `spec.signerName` of their CertificateSigningRequests. */
export const NODE_SIGNER = "drover.dev/agent";

/**
 * Annotation of a request: the text that the chart gave the authority (certificates.renew). An operator that does not know it is
 * still that of the authority before, and leaves the request to its successor: nodes must not get what is about to end.
 */
export const AUTHORITY_ANNOTATION = "drover.dev/authority";

/** Whose certificate it is: the agent's, for its talk with other agents; the switch's, for OVN's southbound database. */
export type CertificateRole = "agent" | "chassis";

export interface CertificateProfile {
  /** Service account, in Drover's own namespace, that may ask for it. */
  serviceAccount: string;
  /** `spec.usages`. An agent is client and server; ovn-controller only a client. */
  usages: readonly string[];
  /** The one alternative name: by it agents tell each other from a switch, whose key an agent must not be believed by. */
  dnsName: (node: string) => string;
}

/** The common name is the node's, which is also the chassis' name in OVN: its rules compare the two. */
export const certificateProfiles: Readonly<Record<CertificateRole, CertificateProfile>> = {
  agent: {
    serviceAccount: "drover-agent",
    usages: ["digital signature", "client auth", "server auth"],
    dnsName: (node) => `${node}.node.drover.dev`,
  },
  chassis: {
    serviceAccount: "drover-ovs",
    usages: ["digital signature", "client auth"],
    dnsName: (node) => `${node}.chassis.drover.dev`,
  },
};
