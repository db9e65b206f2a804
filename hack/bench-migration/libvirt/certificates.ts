/** Certificates by which the QEMUs of two hosts know each other; libvirt's moves take no shared key. */
import { join } from "node:path";
import { run } from "../../lab/run.ts";

export interface Authority {
  /** Directory with ca-cert.pem and ca-key.pem. */
  directory: string;
}

const openssl = (args: string[], input?: string): Promise<string> => run("openssl", args, input === undefined ? {} : { input });
const KEY = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];

export const makeAuthority = async (directory: string): Promise<Authority> => {
  const [key, certificate] = [join(directory, "ca-key.pem"), join(directory, "ca-cert.pem")];
  await openssl(["req", "-x509", ...KEY, "-days", "30", "-subj", "/CN=bench-migration", "-keyout", key, "-out", certificate]);
  return { directory };
};

/** One certificate for both ends of a connection, as libvirt names the files. */
export const issue = async ({ directory: from }: Authority, into: string, address: string): Promise<void> => {
  const [key, request, certificate] = ["server-key.pem", "request.pem", "server-cert.pem"].map((name) => join(into, name));
  if (key === undefined || request === undefined || certificate === undefined) throw new Error("names are missing");
  await openssl(["req", ...KEY, "-subj", `/CN=${address}`, "-keyout", key, "-out", request]);
  const extensions = join(into, "extensions");
  await run("sh", ["-c", 'cat >"$0"', extensions], {
    input: `subjectAltName=IP:${address}\nextendedKeyUsage=serverAuth,clientAuth\nkeyUsage=digitalSignature\n`,
  });
  const authority = ["-CA", join(from, "ca-cert.pem"), "-CAkey", join(from, "ca-key.pem"), "-CAcreateserial"];
  await openssl(["x509", "-req", "-in", request, ...authority, "-days", "30", "-extfile", extensions, "-out", certificate]);
  await run("cp", [join(from, "ca-cert.pem"), into]);
  await run("cp", [key, join(into, "client-key.pem")]);
  await run("cp", [certificate, join(into, "client-cert.pem")]);
};
