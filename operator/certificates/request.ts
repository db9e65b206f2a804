/** What stands in a PKCS#10 request. Loaded only when there is one to read: the ASN.1 library costs 10 MB. */
import { createPublicKey, verify } from "node:crypto";
import { CertificationRequest } from "@peculiar/asn1-csr";
import { AsnConvert } from "@peculiar/asn1-schema";
import { Extensions, type Name, SubjectAlternativeName, id_ce_subjectAltName } from "@peculiar/asn1-x509";

const COMMON_NAME = "2.5.4.3";
const EXTENSION_REQUEST = "1.2.840.113549.1.9.14";
const ECDSA_SHA256 = "1.2.840.10045.4.3.2";

export interface RequestFacts {
  /** Empty where there is no subject; undefined where it is anything but one common name. */
  commonName: string | undefined;
  /** Undefined where anything but DNS names is asked for, or no names at all. */
  dnsNames: string[] | undefined;
  /** Further extensions that are asked for, by their object identifiers. */
  otherExtensions: string[];
  /** SubjectPublicKeyInfo, DER. */
  publicKey: Buffer;
}

/**
 * Reads a request, PEM. Whoever made it had the private key: the signature is checked.
 * Throws a sentence when it is no such thing, or its key is not on the curve P-256.
 */
export function readRequest(pem: string): RequestFacts {
  const request = AsnConvert.parse(derOf(pem), CertificationRequest);
  const info = request.certificationRequestInfo;
  const publicKey = Buffer.from(AsnConvert.serialize(info.subjectPKInfo));
  const key = createPublicKey({ key: publicKey, format: "der", type: "spki" });
  if (key.asymmetricKeyType !== "ec" || key.asymmetricKeyDetails?.namedCurve !== "prime256v1")
    throw new Error("the key of a request must be on the curve P-256");
  const signed = Buffer.from(request.certificationRequestInfoRaw ?? AsnConvert.serialize(info));
  const trusted =
    request.signatureAlgorithm.algorithm === ECDSA_SHA256 && verify("sha256", signed, key, Buffer.from(request.signature));
  if (!trusted) throw new Error("the request is not signed with its own key by ECDSA with SHA-256");

  // oxlint-disable-next-line typescript/no-unnecessary-condition -- their types promise what the standard leaves open
  const attributes = [...(info.attributes ?? [])];
  if (attributes.some(({ type }) => type !== EXTENSION_REQUEST)) throw new Error("the request has attributes besides extensions");
  const extensions = attributes.flatMap(({ values }) => values.flatMap((value) => [...AsnConvert.parse(value, Extensions)]));
  const names = extensions.filter(({ extnID }) => extnID === id_ce_subjectAltName);
  return {
    commonName: commonNameOf(info.subject),
    dnsNames: names.length === 1 && names[0] ? dnsNamesOf(names[0].extnValue.buffer) : undefined,
    otherExtensions: extensions.filter((one) => one.extnID !== id_ce_subjectAltName).map(({ extnID }) => extnID),
    publicKey,
  };
}

function commonNameOf(subject: Name): string | undefined {
  const [only, ...more] = subject.flatMap((parts) => [...parts]);
  if (only === undefined) return "";
  return more.length === 0 && only.type === COMMON_NAME ? only.value.toString() : undefined;
}

function dnsNamesOf(der: ArrayBuffer): string[] | undefined {
  const names = [...AsnConvert.parse(der, SubjectAlternativeName)].map((name) => name.dNSName);
  return names.every((name) => name !== undefined) ? names : undefined;
}

function derOf(pem: string): Buffer {
  const found = /^-----BEGIN CERTIFICATE REQUEST-----\n([A-Za-z0-9+/=\n]+)-----END CERTIFICATE REQUEST-----\n?$/.exec(
    pem.replaceAll("\r\n", "\n"),
  );
  if (!found?.[1]) throw new Error("a request must be one PEM block CERTIFICATE REQUEST");
  return Buffer.from(found[1], "base64");
}
