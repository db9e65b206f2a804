/** Keys and certificates by openssl: EC P-256, one CA. Made once: what is there is kept, so starting again changes nothing. */
import { randomBytes } from "node:crypto";
import { mkdir, readFile, rename, rm, stat, writeFile } from "node:fs/promises";
import path from "node:path";
import { execa } from "execa";

export interface Certificate {
  /** File name without ending. */
  name: string;
  commonName: string;
  organization?: string;
  /** As openssl writes them: `IP:10.0.0.1`, `DNS:localhost`. */
  alternativeNames?: string[];
}

export interface Pki {
  directory: string;
  /** The CA's certificate, which everything trusts. */
  ca: string;
  caKey: string;
  /** Signs and checks service account tokens. */
  serviceAccountKey: string;
}

const DAYS = "3650";
/** One openssl command; seconds on the slowest machine. */
const DEADLINE = 30_000;

export const certificateFiles = (pki: Pki, name: string): { cert: string; key: string } => ({
  cert: path.join(pki.directory, `${name}.crt`),
  key: path.join(pki.directory, `${name}.key`),
});

/** The certificates that every control plane needs. `serviceIp` is the address of the Service `kubernetes`. */
export const controlPlaneCertificates = (address: string, serviceIp: string, alsoKnownAs: string[] = []): Certificate[] => [
  {
    name: "apiserver",
    commonName: "kube-apiserver",
    alternativeNames: [
      ...new Set([`IP:${address}`, "IP:127.0.0.1", `IP:${serviceIp}`, ...alsoKnownAs]),
      "DNS:localhost",
      "DNS:kubernetes",
      "DNS:kubernetes.default",
      "DNS:kubernetes.default.svc",
      "DNS:kubernetes.default.svc.cluster.local",
    ],
  },
  { name: "kubelet-client", commonName: "kube-apiserver-kubelet-client", organization: "system:masters" },
  { name: "front-proxy", commonName: "front-proxy" },
  { name: "admin", commonName: "admin", organization: "system:masters" },
  { name: "controller-manager", commonName: "system:kube-controller-manager" },
  { name: "scheduler", commonName: "system:kube-scheduler" },
];

/** A kubelet's certificate, for its API server connection and for its own port. */
export const nodeCertificate = (node: string, address: string): Certificate => ({
  name: `node-${node}`,
  commonName: `system:node:${node}`,
  organization: "system:nodes",
  alternativeNames: [`IP:${address}`, `DNS:${node}`],
});

/** The CA, the service account key and these certificates; only what is missing is made. */
export const makePki = async (directory: string, certificates: readonly Certificate[]): Promise<Pki> => {
  await mkdir(directory, { recursive: true, mode: 0o700 });
  const pki: Pki = {
    directory,
    ca: path.join(directory, "ca.crt"),
    caKey: path.join(directory, "ca.key"),
    serviceAccountKey: path.join(directory, "service-account.key"),
  };
  if (!(await isThere(pki.ca))) {
    await makeKey(pki.caKey);
    await intoPlace(pki.ca, (file) => [
      "req",
      "-x509",
      "-new",
      "-key",
      pki.caKey,
      "-days",
      DAYS,
      "-subj",
      "/CN=drover-lab-ca",
      "-out",
      file,
      "-addext",
      "keyUsage=critical,keyCertSign,cRLSign,digitalSignature",
    ]);
  }
  if (!(await isThere(pki.serviceAccountKey))) await makeKey(pki.serviceAccountKey);
  await Promise.all(certificates.map((certificate) => addCertificate(pki, certificate)));
  return pki;
};

/** Makes one certificate, for server and client use, unless it is there. */
export const addCertificate = async (pki: Pki, certificate: Certificate): Promise<void> => {
  const { cert, key } = certificateFiles(pki, certificate.name);
  if (await isThere(cert)) return;
  await makeKey(key);
  const request = `${cert}.request`;
  const extensions = `${cert}.extensions`;
  try {
    await openssl(["req", "-new", "-key", key, "-subj", subject(certificate), "-out", request]);
    await writeFile(extensions, extensionText(certificate));
    // A serial of its own, not from a counter file: certificates are made in parallel.
    const serial = `0x${randomBytes(8).toString("hex")}`;
    await intoPlace(cert, (file) => [
      "x509",
      "-req",
      "-in",
      request,
      "-CA",
      pki.ca,
      "-CAkey",
      pki.caKey,
      "-set_serial",
      serial,
      "-days",
      DAYS,
      "-extfile",
      extensions,
      "-out",
      file,
    ]);
  } finally {
    await Promise.all([rm(request, { force: true }), rm(extensions, { force: true })]);
  }
};

/** Slashes separate fields of a subject, so they cannot be in a name. */
export const subject = ({ commonName, organization }: Certificate): string => {
  for (const part of [commonName, organization ?? ""]) {
    if (part.includes("/")) throw new Error(`${part}: a certificate's name must not contain "/"`);
  }
  return `${organization === undefined ? "" : `/O=${organization}`}/CN=${commonName}`;
};

export const extensionText = ({ alternativeNames = [] }: Certificate): string =>
  [
    "keyUsage=critical,digitalSignature,keyEncipherment",
    "extendedKeyUsage=serverAuth,clientAuth",
    "basicConstraints=CA:FALSE",
    ...(alternativeNames.length > 0 ? [`subjectAltName=${alternativeNames.join(",")}`] : []),
    "",
  ].join("\n");

/** A kubeconfig with everything in it, for the client certificate of this name. */
export const kubeconfigText = async (pki: Pki, name: string, server: string): Promise<string> => {
  const files = certificateFiles(pki, name);
  const base64 = async (file: string): Promise<string> => (await readFile(file)).toString("base64");
  const [ca, cert, key] = await Promise.all([base64(pki.ca), base64(files.cert), base64(files.key)]);
  // JSON is YAML.
  return JSON.stringify(
    {
      apiVersion: "v1",
      kind: "Config",
      clusters: [{ name: "lab", cluster: { server, "certificate-authority-data": ca } }],
      users: [{ name, user: { "client-certificate-data": cert, "client-key-data": key } }],
      contexts: [{ name: "lab", context: { cluster: "lab", user: name } }],
      "current-context": "lab",
    },
    undefined,
    2,
  );
};

/** Writes a kubeconfig that only its owner can read; replaced as a whole. */
export const writeKubeconfig = async (pki: Pki, name: string, server: string, file: string): Promise<string> => {
  await mkdir(path.dirname(file), { recursive: true });
  const draft = `${file}.${process.pid}`;
  await writeFile(draft, await kubeconfigText(pki, name, server), { mode: 0o600 });
  await rename(draft, file);
  return file;
};

// The traditional form: the API server reads the service account's public key from it, which it cannot from PKCS #8.
const makeKey = (key: string): Promise<void> =>
  intoPlace(key, (file) => ["ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", file]);

/** The file appears whole or not at all, whenever we are killed. */
const intoPlace = async (file: string, args: (draft: string) => string[]): Promise<void> => {
  const draft = `${file}.draft`;
  await openssl(args(draft));
  await rename(draft, file);
};

const openssl = async (args: string[]): Promise<void> => {
  await execa("openssl", args, { timeout: DEADLINE, stdin: "ignore" });
};

const isThere = (file: string): Promise<boolean> =>
  stat(file).then(
    () => true,
    () => false,
  );
