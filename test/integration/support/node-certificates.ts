/** Certificates of nodes for tests, by openssl: good ones, expired ones, and those of a stranger's authority. */
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { execa } from "execa";
import { certificateProfiles, type CertificateRole } from "../../../crds/certificates.ts";
import type { IdentityMaterial } from "../../../node-agent/identity/certificate.ts";
import type { NodeIdentity } from "../../../node-agent/identity/identity.ts";

export class TestAuthority {
  readonly #directory: string;
  readonly ca: string;

  private constructor(directory: string, ca: string) {
    this.#directory = directory;
    this.ca = ca;
  }

  static async make(): Promise<TestAuthority> {
    const directory = await mkdtemp(join(tmpdir(), "drover-ca-"));
    const files = ["-keyout", join(directory, "ca.key"), "-out", join(directory, "ca.crt")];
    await openssl(["req", "-x509", ...curve, "-noenc", "-subj", "/CN=drover test", "-days", "2", ...files]);
    return new TestAuthority(directory, await readFile(join(directory, "ca.crt"), "utf8"));
  }

  /** `expired`: it was valid until a while ago. */
  async issue(node: string, options: { expired?: boolean; role?: CertificateRole } = {}): Promise<IdentityMaterial> {
    const { expired = false, role = "agent" } = options;
    const base = join(this.#directory, `${node}-${role}-${String(expired)}`);
    const extensions = `subjectAltName=DNS:${certificateProfiles[role].dnsName(node)}\nextendedKeyUsage=clientAuth,serverAuth\n`;
    await writeFile(`${base}.ext`, extensions);
    await openssl(["req", "-new", ...curve, "-noenc", "-subj", `/CN=${node}`, "-keyout", `${base}.key`, "-out", `${base}.csr`]);
    const ca = ["-CA", join(this.#directory, "ca.crt"), "-CAkey", join(this.#directory, "ca.key"), "-CAcreateserial"];
    // `x509 -req` knows dates of the past since OpenSSL 3.4 only; `ca` has always known them.
    if (expired) await this.#issueOld(base);
    else
      await openssl([
        "x509",
        "-req",
        "-in",
        `${base}.csr`,
        ...ca,
        "-days",
        "1",
        "-extfile",
        `${base}.ext`,
        "-out",
        `${base}.crt`,
      ]);
    const [key, cert] = await Promise.all([readFile(`${base}.key`, "utf8"), readFile(`${base}.crt`, "utf8")]);
    return { key, cert, ca: this.ca };
  }

  async #issueOld(base: string): Promise<void> {
    const directory = this.#directory;
    await writeFile(join(directory, "index.txt"), "");
    const config = `[ca]
default_ca = one
[one]
dir = ${directory}
database = ${directory}/index.txt
new_certs_dir = ${directory}
certificate = ${directory}/ca.crt
private_key = ${directory}/ca.key
rand_serial = yes
default_md = sha256
policy = any
[any]
commonName = supplied
`;
    await writeFile(join(directory, "ca.cnf"), config);
    const dates = ["-startdate", "20200101000000Z", "-enddate", "20200201000000Z"];
    const files = ["-in", `${base}.csr`, "-out", `${base}.crt`, "-extfile", `${base}.ext`];
    await openssl(["ca", "-batch", "-notext", "-config", join(directory, "ca.cnf"), ...dates, ...files]);
  }

  async remove(): Promise<void> {
    await rm(this.#directory, { recursive: true, force: true });
  }
}

/** An identity that is there from the beginning; `renew` gives it another certificate. */
export function fixedIdentity(material: IdentityMaterial): NodeIdentity & { renew: (next: IdentityMaterial) => void } {
  let now = material;
  const handlers = new Set<(material: IdentityMaterial) => void>();
  return {
    current: () => now,
    ready: () => Promise.resolve(now),
    onChange: (fn) => {
      handlers.add(fn);
      return () => void handlers.delete(fn);
    },
    renew: (next) => {
      now = next;
      for (const fn of handlers) fn(next);
    },
  };
}

const curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"];

const openssl = async (args: readonly string[]): Promise<void> => {
  await execa("openssl", args, { timeout: 30_000, stdin: "ignore" });
};
