/** The key of a move as QEMU wants it: files that only its own process can read, for as long as they must be there. */
import { chown, mkdir, rm } from "node:fs/promises";
import { join } from "node:path";
import type { NodePaths } from "../../../node.ts";
import { writeAtomic } from "../../../pool/files.ts";
import type { GuestIdentity } from "../../../types.ts";
import { keyFiles, PRIORITY } from "../../move-key.ts";
import type { MoveSecret } from "../../move.ts";
import type { JsonObject } from "../qmp/wire.ts";
import { TLS } from "./names.ts";

/** Below the instance's `vm` directory, which QEMU sees as /vm and cannot write to. */
const DIRECTORY = "move";

/** Puts the key where the guest's QEMU can read it; replaces an earlier one. */
export async function writeSecret(
  paths: NodePaths,
  instanceUid: string,
  identity: GuestIdentity,
  secret: MoveSecret,
): Promise<void> {
  const files = keyFiles(secret);
  const directory = join(paths.instanceVm(instanceUid), DIRECTORY);
  await mkdir(directory, { recursive: true, mode: 0o755 });
  await Promise.all(
    files.map(async ({ name, content }) => {
      const file = join(directory, name);
      await writeAtomic(file, content);
      await chown(file, identity.uid, identity.gid);
    }),
  );
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
