/** The source's disks: copied to the target's volumes over NBD, then kept in step. */
import { once } from "node:events";
import { connect } from "node:net";
import type { OutgoingPlan } from "../../move.ts";
import type { QmpEvent, QmpSession } from "../qmp/session.ts";
import { queryMirrors, queryMoveNodes, queryMoveObjects, type MirrorJob } from "./commands.ts";
import { insertedDisk } from "../local/nodes.ts";
import { diskOf, nameOf, TLS } from "./names.ts";
import { monitorOf, type MoveParts } from "./parts.ts";
import { removeSecret, tlsObject, writeSecret } from "./secret.ts";

/** Loads the key, which QEMU keeps in memory; the file is gone when this ends. */
export async function loadSecret(parts: MoveParts, instanceUid: string, plan: OutgoingPlan): Promise<void> {
  if (!plan.secret) return;
  const { notes, paths } = parts.context;
  const qmp = await monitorOf(parts, instanceUid);
  if ((await queryMoveObjects(qmp)).includes(TLS)) return;
  const note = await notes.read(instanceUid);
  if (!note) throw new Error(`there is no guest ${instanceUid} here`);
  try {
    await writeSecret(paths, instanceUid, note.identity, plan.secret);
    await qmp.execute("object-add", tlsObject("client", plan.secret));
  } finally {
    await removeSecret(paths, instanceUid);
  }
}

/**
 * Mirrors what the target must get, `mirrorRate` bytes per second each (0: no limit). Resolves when all are in step; those that
 * are under way go on. Throws the words of the first that fails; the others are left to whoever gives up.
 */
export async function mirrorDisks(
  parts: MoveParts,
  instanceUid: string,
  plan: OutgoingPlan,
  mirrorRate: number,
  signal: AbortSignal,
): Promise<void> {
  const qmp = await monitorOf(parts, instanceUid);
  const { until, stop } = parts.events.listen(instanceUid);
  try {
    const existing = await queryMirrors(qmp);
    const missing = plan.copy.filter(({ disk }) => !existing.some((one) => one.disk === disk && one.error === undefined));
    const stale = existing.filter((one) => one.error !== undefined);
    await Promise.all(stale.map(({ job }) => qmp.execute("job-dismiss", { id: job })));
    const nodes = missing.length === 0 ? [] : await queryMoveNodes(qmp);
    const { address, diskPort } = plan.offer;
    if (missing.length > 0 && diskPort !== undefined) await expectListening(address, diskPort);
    signal.throwIfAborted();
    await Promise.all(
      missing.map(({ disk }) => startMirror(qmp, plan, disk, { rate: mirrorRate, hasNode: nodes.includes(nameOf(disk)) })),
    );
    for (const { disk } of plan.copy) {
      if (existing.some((one) => one.disk === disk && one.ready)) continue;
      const end = await until(isAbout(disk), `copying disk ${disk}`, { signal });
      if (end.name !== "BLOCK_JOB_READY")
        throw new Error(`copying disk ${disk} failed: ${wordsOf(end, await queryMirrors(qmp))}`);
    }
  } finally {
    stop();
  }
}

const OPEN_SECONDS = 3;
const PROBE_MS = 3_000;

/** Whether the target takes connections, asked by the agent: QEMU itself would stand still while it waits for an answer. */
async function expectListening(host: string, port: number): Promise<void> {
  const socket = connect({ host, port });
  try {
    await once(socket, "connect", { signal: AbortSignal.timeout(PROBE_MS) });
  } catch (cause) {
    throw new Error(`the target does not answer at ${host} port ${port}; is that port open between the nodes?`, { cause });
  } finally {
    socket.destroy();
  }
}

async function startMirror(
  qmp: QmpSession,
  { offer, secret }: OutgoingPlan,
  disk: string,
  { rate, hasNode }: { rate: number; hasNode: boolean },
): Promise<void> {
  const name = nameOf(disk);
  if (offer.diskPort === undefined) throw new Error("the target has offered nothing to copy disks to");
  if (hasNode) await qmp.execute("blockdev-del", { "node-name": name });
  await qmp.execute("blockdev-add", {
    driver: "nbd",
    "node-name": name,
    server: { type: "inet", host: offer.address, port: String(offer.diskPort) },
    export: disk,
    ...(secret ? { "tls-creds": TLS } : {}),
    // what is zero is told, not sent, and takes no room there
    discard: "unmap",
    "detect-zeroes": "unmap",
    // a dead link is an error, not a reason to wait; while it connects, QEMU's main loop does nothing else
    "reconnect-delay": 0,
    "open-timeout": OPEN_SECONDS,
  });
  await qmp.execute("blockdev-mirror", {
    "job-id": name,
    device: (await insertedDisk(qmp, disk)).node,
    target: name,
    sync: "full",
    // the guest's writes do not wait for the link
    "copy-mode": "background",
    speed: rate,
    // its end stays to be seen, also by an agent that was away
    "auto-dismiss": false,
  });
}

const ENDS = new Set(["BLOCK_JOB_READY", "BLOCK_JOB_COMPLETED", "BLOCK_JOB_CANCELLED", "BLOCK_JOB_ERROR"]);

const isAbout =
  (disk: string) =>
  (event: QmpEvent): boolean =>
    ENDS.has(event.name) && diskOf(String(event.data["device"])) === disk;

function wordsOf(event: QmpEvent, mirrors: readonly MirrorJob[]): string {
  const error = event.data["error"] ?? mirrors.find(({ job }) => job === event.data["device"])?.error;
  return typeof error === "string" ? error : "it was cancelled, or the target refused to write";
}
