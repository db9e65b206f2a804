/** The authority of the nodes' certificates: its key signs, and lies in the operator's pods only. */
import { createHash, createPrivateKey, sign, X509Certificate, type KeyObject } from "node:crypto";
import { AsnConvert, OctetString } from "@peculiar/asn1-schema";
import {
  AlgorithmIdentifier,
  AttributeTypeAndValue,
  AttributeValue,
  AuthorityKeyIdentifier,
  BasicConstraints,
  Certificate,
  ExtendedKeyUsage,
  Extension,
  Extensions,
  GeneralName,
  id_ce_authorityKeyIdentifier,
  id_ce_basicConstraints,
  id_ce_extKeyUsage,
  id_ce_keyUsage,
  id_ce_subjectAltName,
  id_kp_clientAuth,
  id_kp_serverAuth,
  KeyIdentifier,
  KeyUsage,
  KeyUsageFlags,
  Name,
  RelativeDistinguishedName,
  SubjectAlternativeName,
  SubjectPublicKeyInfo,
  TBSCertificate,
  Validity,
  Version,
} from "@peculiar/asn1-x509";
import { certificateProfiles, type CertificateRole } from "../../crds/certificates.ts";

const COMMON_NAME = "2.5.4.3";
const ECDSA_SHA256 = "1.2.840.10045.4.3.2";
/** Clocks of nodes that are behind ours. */
const BACKDATED_MS = 5 * 60_000;

export interface AuthorityFiles {
  /** Its certificate and its key, PEM. */
  cert: string;
  key: string;
  /** What nodes are to trust: its certificate, and while it is being replaced the one before. PEM. */
  trusted: string;
}

/** What is granted: everything else in a certificate follows from it. */
export interface Grant {
  node: string;
  role: CertificateRole;
  /** SubjectPublicKeyInfo, DER. */
  publicKey: Buffer;
  /** How long from `now` (ms since 1970) on. */
  validMs: number;
  now: number;
  /** 16 random bytes. */
  serial: Buffer;
}

export class Authority {
  readonly #key: KeyObject;
  readonly #cert: X509Certificate;
  readonly #issuer: Name;
  readonly #keyId: ArrayBuffer;
  readonly #trusted: string;

  /** Throws when the key is not the certificate's, or not on an elliptic curve. */
  constructor(files: AuthorityFiles) {
    this.#cert = new X509Certificate(files.cert);
    this.#key = createPrivateKey(files.key);
    if (this.#key.asymmetricKeyType !== "ec" || !this.#cert.checkPrivateKey(this.#key))
      throw new Error("the key of the nodes' certificate authority does not belong to its certificate; set certificates.renew");
    const { subject, subjectPublicKeyInfo, extensions } = AsnConvert.parse(this.#cert.raw, Certificate).tbsCertificate;
    this.#issuer = subject;
    const own = extensions?.find(({ extnID }) => extnID === "2.5.29.14");
    this.#keyId = own ? AsnConvert.parse(own.extnValue.buffer, OctetString).buffer : keyId(subjectPublicKeyInfo);
    this.#trusted = files.trusted;
  }

  /**
   * A certificate, PEM, followed by what its holder is to trust. Never valid for longer than the authority itself.
   * Nothing in it comes from the requester but the public key.
   */
  issue(grant: Grant): string {
    const profile = certificateProfiles[grant.role];
    const purposes = profile.usages.includes("server auth") ? [id_kp_clientAuth, id_kp_serverAuth] : [id_kp_clientAuth];
    const subjectPublicKeyInfo = AsnConvert.parse(grant.publicKey, SubjectPublicKeyInfo);
    const notAfter = Math.min(grant.now + grant.validMs, Date.parse(this.#cert.validTo));
    const algorithm = new AlgorithmIdentifier({ algorithm: ECDSA_SHA256 });
    const tbsCertificate = new TBSCertificate({
      version: Version.v3,
      serialNumber: serialNumber(grant.serial),
      signature: algorithm,
      issuer: this.#issuer,
      validity: new Validity({ notBefore: new Date(grant.now - BACKDATED_MS), notAfter: new Date(notAfter) }),
      subject: named(grant.node),
      subjectPublicKeyInfo,
      extensions: new Extensions([
        extension(id_ce_basicConstraints, new BasicConstraints(), true),
        extension(id_ce_keyUsage, new KeyUsage(KeyUsageFlags.digitalSignature), true),
        extension(id_ce_extKeyUsage, new ExtendedKeyUsage(purposes)),
        extension(id_ce_subjectAltName, new SubjectAlternativeName([new GeneralName({ dNSName: profile.dnsName(grant.node) })])),
        extension(id_ce_authorityKeyIdentifier, new AuthorityKeyIdentifier({ keyIdentifier: new KeyIdentifier(this.#keyId) })),
      ]),
    });
    const signed = Buffer.from(AsnConvert.serialize(tbsCertificate));
    const certificate = new Certificate({
      tbsCertificate,
      signatureAlgorithm: algorithm,
      signatureValue: arrayBuffer(sign("sha256", signed, this.#key)),
    });
    return pem(Buffer.from(AsnConvert.serialize(certificate))) + this.#trusted;
  }
}

const named = (name: string): Name =>
  new Name([
    new RelativeDistinguishedName([
      new AttributeTypeAndValue({ type: COMMON_NAME, value: new AttributeValue({ utf8String: name }) }),
    ]),
  ]);

const extension = (extnID: string, value: object, critical = false): Extension =>
  new Extension({ extnID, critical, extnValue: new OctetString(AsnConvert.serialize(value)) });

const keyId = (info: SubjectPublicKeyInfo): ArrayBuffer =>
  arrayBuffer(createHash("sha1").update(Buffer.from(info.subjectPublicKey)).digest());

/** Positive, and its first byte not 0, so that its shortest encoding is the one that is written. */
function serialNumber(random: Buffer): ArrayBuffer {
  const bytes = Buffer.from(random);
  bytes[0] = ((bytes[0] ?? 0) & 0x7f) | 0x40;
  return arrayBuffer(bytes);
}

const arrayBuffer = (bytes: Buffer): ArrayBuffer => new Uint8Array(bytes).buffer;

const pem = (der: Buffer): string =>
  `-----BEGIN CERTIFICATE-----\n${(der.toString("base64").match(/.{1,64}/g) ?? []).join("\n")}\n-----END CERTIFICATE-----\n`;
