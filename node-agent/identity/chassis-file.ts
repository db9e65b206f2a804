/**
 * Where ovn-controller finds the node's key and certificate: one file in memory (a tmpfs of the node), for root alone.
 *
 * One file for both, because OVS looks at the times of two files one after the other, and would take one of them for new and
 * the other not for good. It looks before each connection: a renewed certificate needs no restart.
 */
import { chmod, mkdir, readFile, rename, writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { IdentityMaterial } from "./certificate.ts";

const NAME = "chassis.pem";
const MARK = "drover.dev/authority: ";

/**
 * Writes it whole or not at all; the directory is made. May be repeated.
 * @param authority a text that is another one once the authority was replaced
 */
export async function writeChassisFile(directory: string, authority: string, { key, cert }: IdentityMaterial): Promise<void> {
  await mkdir(directory, { recursive: true });
  // kubelet makes it for everybody to read, where it comes first.
  await chmod(directory, 0o700);
  const temporary = join(directory, `.${NAME}.new`);
  await writeFile(temporary, `${MARK}${JSON.stringify(authority)}\n${key}${cert}`, { mode: 0o600 });
  await rename(temporary, join(directory, NAME));
}

/** What an earlier process wrote, so that a restart needs no new certificate; undefined where there is none of this authority. */
export async function readChassisFile(directory: string, authority: string): Promise<IdentityMaterial | undefined> {
  const text = await readFile(join(directory, NAME), "utf8").catch(() => undefined);
  if (text?.startsWith(`${MARK}${JSON.stringify(authority)}\n`) !== true) return undefined;
  const [key] = /-----BEGIN PRIVATE KEY-----[^-]+-----END PRIVATE KEY-----\n/.exec(text) ?? [];
  const [cert] = /-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----\n/.exec(text) ?? [];
  return key === undefined || cert === undefined ? undefined : { key, cert, ca: "" };
}
