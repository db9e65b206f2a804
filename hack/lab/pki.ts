/** The lab's certificates and kubeconfigs: one authority, EC P-256, made by openssl, kept as long as the lab's state is. */
import { randomBytes } from "node:crypto";
import { mkdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { exists, writeWhole } from "./files.ts";
import type { Lab } from "./identity.ts";
import { run } from "./run.ts";

const DAYS = "3650";

interface Subject {
  /** File name. */
  name: string;
  commonName: string;
  organization?: string;
  /** subjectAltName, such as IP:10.0.0.1. */
  names?: string[];
}

const directory = (lab: Lab): string => join(lab.state, "pki");

export const pkiFile = (lab: Lab, name: string): string => join(directory(lab), name);
export const kubeconfigOf = (lab: Lab, user: string): string => join(directory(lab), `${user}.kubeconfig`);

/** Names under which the API server is reached. */
const apiNames = (lab: Lab): string[] => [
  ...[lab.hub.address, "127.0.0.1", lab.serviceAddress].map((address) => `IP:${address}`),
  ...["localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"].map((name) => `DNS:${name}`),
];

/** All certificates of the lab; those of `users` come with a kubeconfig. Pure. */
export const subjects = (lab: Lab): Subject[] => [
  { name: "apiserver", commonName: "kube-apiserver", names: apiNames(lab) },
  { name: "kubelet-client", commonName: "kube-apiserver-kubelet-client", organization: "system:masters" },
  { name: "front-proxy", commonName: "front-proxy" },
  { name: "admin", commonName: "lab-admin", organization: "system:masters" },
  { name: "controller-manager", commonName: "system:kube-controller-manager" },
  { name: "scheduler", commonName: "system:kube-scheduler" },
  ...lab.nodes.map((node) => ({
    name: node.name,
    commonName: `system:node:${node.name}`,
    organization: "system:nodes",
    names: [`IP:${node.address}`, `DNS:${node.name}`],
  })),
];

const newKey = (path: string): Promise<string> =>
  run("openssl", ["ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", path]);

const makeAuthority = async (lab: Lab): Promise<void> => {
  const [key, certificate] = [pkiFile(lab, "ca.key"), pkiFile(lab, "ca.crt")];
  await newKey(`${key}.new`);
  const extension = "keyUsage=critical,keyCertSign,cRLSign,digitalSignature";
  const subject = ["-subj", `/CN=drover-lab-${lab.id}`, "-days", DAYS, "-addext", extension];
  await run("openssl", ["req", "-x509", "-new", "-key", `${key}.new`, ...subject, "-out", `${certificate}.new`]);
  await rename(`${key}.new`, key);
  await rename(`${certificate}.new`, certificate);
};

const makeCertificate = async (lab: Lab, subject: Subject): Promise<void> => {
  const file = (suffix: string): string => pkiFile(lab, `${subject.name}.${suffix}`);
  const organization = subject.organization === undefined ? "" : `/O=${subject.organization}`;
  await newKey(file("key"));
  await run("openssl", [
    "req",
    "-new",
    "-key",
    file("key"),
    "-subj",
    `${organization}/CN=${subject.commonName}`,
    "-out",
    file("csr"),
  ]);
  const extensions = [
    "keyUsage=critical,digitalSignature,keyEncipherment",
    "extendedKeyUsage=serverAuth,clientAuth",
    "basicConstraints=CA:FALSE",
    ...(subject.names === undefined ? [] : [`subjectAltName=${subject.names.join(",")}`]),
  ];
  await writeFile(file("ext"), `${extensions.join("\n")}\n`);
  const signer = [
    "-CA",
    pkiFile(lab, "ca.crt"),
    "-CAkey",
    pkiFile(lab, "ca.key"),
    "-set_serial",
    `0x${randomBytes(8).toString("hex")}`,
  ];
  const output = ["-days", DAYS, "-extfile", file("ext"), "-out", `${file("crt")}.new`];
  await run("openssl", ["x509", "-req", "-in", file("csr"), ...signer, ...output]);
  await rename(`${file("crt")}.new`, file("crt"));
  await Promise.all(["csr", "ext"].map((suffix) => rm(file(suffix))));
};

const base64 = async (path: string): Promise<string> => (await readFile(path)).toString("base64");

/** A kubeconfig with its certificates inside. JSON is YAML too. */
const kubeconfig = async (lab: Lab, name: string): Promise<string> =>
  JSON.stringify({
    apiVersion: "v1",
    kind: "Config",
    clusters: [
      {
        name: "lab",
        cluster: {
          server: `https://${lab.hub.address}:${lab.apiPort}`,
          "certificate-authority-data": await base64(pkiFile(lab, "ca.crt")),
        },
      },
    ],
    users: [
      {
        name,
        user: {
          "client-certificate-data": await base64(pkiFile(lab, `${name}.crt`)),
          "client-key-data": await base64(pkiFile(lab, `${name}.key`)),
        },
      },
    ],
    contexts: [{ name: "lab", context: { cluster: "lab", user: name } }],
    "current-context": "lab",
  });

/** Everything above, and the administrator's kubeconfig where users look for it. What is there is kept. */
export const ensurePki = async (lab: Lab): Promise<void> => {
  await mkdir(directory(lab), { recursive: true, mode: 0o700 });
  if (!(await exists(pkiFile(lab, "ca.crt")))) await makeAuthority(lab);
  if (!(await exists(pkiFile(lab, "sa.key")))) {
    await run("openssl", ["genrsa", "-out", pkiFile(lab, "sa.key.new"), "2048"]);
    await rename(pkiFile(lab, "sa.key.new"), pkiFile(lab, "sa.key"));
  }
  await Promise.all(
    subjects(lab).map(async (subject) => {
      if (!(await exists(pkiFile(lab, `${subject.name}.crt`)))) await makeCertificate(lab, subject);
      const file = kubeconfigOf(lab, subject.name);
      if (!(await exists(file))) await writeWhole(file, await kubeconfig(lab, subject.name), 0o600);
    }),
  );
  await writeWhole(lab.kubeconfig, await kubeconfig(lab, "admin"), 0o600);
};
