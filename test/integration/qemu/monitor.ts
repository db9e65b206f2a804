/** The monitor of a guest that its agent has left free. */
import { join } from "node:path";
import { QmpSession } from "../../../node-agent/instance/qemu/qmp/session.ts";

/** A monitor says nothing to a second client: so long is waited for the one that agents take last. On a busy machine they may have it. */
const GREETING_MS = 2_000;

/** `directory`: where its sockets are. */
export const freeMonitor = (directory: string): Promise<QmpSession> =>
  QmpSession.connect(join(directory, "qmp2"), { greetingMs: GREETING_MS }).catch(() =>
    QmpSession.connect(join(directory, "qmp")),
  );
