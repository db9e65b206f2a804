/** The key of a move as QEMU wants it: a file that only its own process can read, for as long as it must be there. */
import { chown, mkdir, rm } from "node:fs/promises";
import { join } from "node:path";
import type { NodePaths } from "../../../node.ts";
import { writeAtomic } from "../../../pool/files.ts";
import type { GuestIdentity } from "../../../types.ts";
import type { MoveSecret } from "../../move.ts";
import type { JsonObject } from "../qmp/wire.ts";
import { TLS } from "./names.ts";

/** Below the instance's `vm` directory, which QEMU sees as /vm and cannot write to. */
const DIRECTORY = "move";
/** Name that QEMU looks for. */
const FILE = "keys.psk";

const IDENTITY = /^[A-Za-z0-9_-]{1,64}$/;
const KEY = /^([0-9a-f]{2}){16,64}$/;

/** TLS 1.3 only, the cipher that costs least first; QEMU adds key exchanges that have no certificates. */
const PRIORITY = "NORMAL:-VERS-ALL:+VERS-TLS1.3:-CIPHER-ALL:+AES-128-GCM:+AES-256-GCM:+CHACHA20-POLY1305";

/** Puts the key where the guest's QEMU can read it; replaces an earlier one. */
export async function writeSecret(
  paths: NodePaths,
  instanceUid: string,
  identity: GuestIdentity,
  secret: MoveSecret,
): Promise<void> {
  if (!IDENTITY.test(secret.identity) || !KEY.test(secret.key))
    throw new TypeError("not a name and a hex key of 128 to 512 bits");
  const directory = join(paths.instanceVm(instanceUid), DIRECTORY);
  await mkdir(directory, { recursive: true, mode: 0o755 });
  const file = join(directory, FILE);
  await writeAtomic(file, `${secret.identity}:${secret.key}\n`);
  await chown(file, identity.uid, identity.gid);
}

/** May be repeated. */
export const removeSecret = (paths: NodePaths, instanceUid: string): Promise<void> =>
  rm(join(paths.instanceVm(instanceUid), DIRECTORY), { recursive: true, force: true });

/** Arguments of `object-add`. The server reads the file at each handshake, the client once, here. */
export const tlsObject = (endpoint: "server" | "client", secret: MoveSecret): JsonObject => ({
  "qom-type": "tls-creds-psk",
  id: TLS,
  endpoint,
  dir: `/vm/${DIRECTORY}`,
  priority: PRIORITY,
  ...(endpoint === "client" ? { username: secret.identity } : {}),
});
