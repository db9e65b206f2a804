/** An authority as the chart makes one, for tests. */
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { execa } from "execa";
import type { AuthorityFiles } from "./authority.ts";

/** Made in `directory` as tls.crt, tls.key and ca.crt, as a Secret is mounted. */
export async function makeAuthority(directory: string, name = "drover-agent-ca"): Promise<AuthorityFiles> {
  const curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-noenc"];
  const files = [
    "-keyout",
    join(directory, "tls.key"),
    "-out",
    join(directory, "tls.crt"),
    "-days",
    "3650",
    "-subj",
    `/CN=${name}`,
  ];
  await execa("openssl", ["req", "-x509", ...curve, ...files], { timeout: 30_000 });
  // Helm writes its key so.
  await execa("openssl", ["ec", "-in", join(directory, "tls.key"), "-out", join(directory, "tls.key")], { timeout: 30_000 });
  await execa("cp", [join(directory, "tls.crt"), join(directory, "ca.crt")], { timeout: 30_000 });
  const [cert, key] = await Promise.all(["tls.crt", "tls.key"].map((file) => readFile(join(directory, file), "utf8")));
  return { cert: cert ?? "", key: key ?? "", trusted: cert ?? "" };
}

export async function withAuthority<T>(use: (files: AuthorityFiles) => Promise<T> | T): Promise<T> {
  const directory = await mkdtemp(join(tmpdir(), "drover-authority-"));
  try {
    return await use(await makeAuthority(directory));
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}
