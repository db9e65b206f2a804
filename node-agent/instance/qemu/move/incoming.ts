/** The target's side: a QEMU that waits for a guest, takes it, and is an ordinary guest's QEMU from then on. */
import { once } from "node:events";
import { createServer } from "node:net";
import { errorCode, errorText, UserError } from "../../../errors.ts";
import type { ProcessId } from "../../../ovs/process.ts";
import type { InstanceNote } from "../../driver.ts";
import type { IncomingPlan, IncomingState, Offer } from "../../move.ts";
import { DEADLINE, type QemuContext, type Run } from "../context.ts";
import { endProcess } from "../observe.ts";
import { findProcess, goneWithin } from "../process.ts";
import { queryStatus } from "../qmp/commands.ts";
import { QmpClosed, QmpError } from "../qmp/errors.ts";
import type { QmpEvent, QmpSession } from "../qmp/session.ts";
import { startMachine } from "../start.ts";
import {
  memoryChannel,
  queryMigrate,
  queryMoveExports,
  queryMoveObjects,
  setCapabilities,
  setParameters,
  type Migration,
} from "./commands.ts";
import { isMigration, type MoveEvents } from "./events.ts";
import { deviceNode, MOVE_DEADLINE, nameOf, TLS } from "./names.ts";
import { portsFrom } from "./ports.ts";
import { removeSecret, tlsObject, writeSecret } from "./secret.ts";

/** Starts it and makes it listen; or gives the offer of the one that waits already. Nothing is left when it throws. */
export async function receive(context: QemuContext, plan: IncomingPlan, signal: AbortSignal): Promise<Offer> {
  const { instanceUid, claimUid } = plan.machine;
  const waiting = await findIncoming(context, instanceUid);
  if (plan.secret) await writeSecret(context.paths, instanceUid, plan.machine.identity, plan.secret);
  if (waiting) {
    const { run, process } = waiting;
    if (process && run.incoming?.offer && run.claimUid === claimUid) return run.incoming.offer;
    await abandon(context, instanceUid); // it died before it could listen, or waits for another attempt
    if (plan.secret) await writeSecret(context.paths, instanceUid, plan.machine.identity, plan.secret);
  }
  context.starting.add(instanceUid);
  try {
    await startMachine(context, plan.machine, signal, { incoming: true });
  } finally {
    context.starting.delete(instanceUid);
  }
  try {
    const offer = await listen(context, plan);
    await updateIncoming(context, instanceUid, (incoming) => ({ ...incoming, offer }));
    return offer;
  } catch (error) {
    await abandon(context, instanceUid);
    throw error;
  }
}

async function listen(context: QemuContext, plan: IncomingPlan): Promise<Offer> {
  const { machine, copy, address, secret, streams } = plan;
  const qmp = await context.monitors.session(machine.instanceUid, DEADLINE.ask);
  // QEMU works through them in this order; what was said is looked at together
  const [postCopy] = await Promise.all([
    streams > 0 ? false : accepts(qmp, "postcopy-ram"),
    setCapabilities(qmp, { events: true, "return-path": true, "late-block-activate": true, multifd: streams > 0 }),
    ...(secret ? [qmp.execute("object-add", tlsObject("server", secret))] : []),
    setParameters(qmp, {
      ...(secret ? { "tls-creds": TLS } : {}),
      ...(streams > 0 ? { "multifd-channels": streams } : {}),
    }),
  ]);
  const ports = portsFrom(plan.ports, machine.instanceUid);
  const diskPort = copy.length === 0 ? undefined : await onFreePort(ports, address, (port) => serveDisks(qmp, plan, port));
  // One try is all that QEMU allows: where its port was taken it says of the next that its state is "setup" (seen with 10.0)
  const ramPort = await onFreePort(ports, address, (port) => tryPort(port, address));
  await qmp.execute("migrate-incoming", memoryChannel(address, ramPort));
  return { address, ramPort, diskPort, streams, postCopy };
}

/** Whether QEMU and the kernel can do it; if so it is on. */
async function accepts(qmp: QmpSession, capability: string): Promise<boolean> {
  try {
    await setCapabilities(qmp, { [capability]: true });
    return true;
  } catch (error) {
    if (error instanceof QmpError) return false;
    throw error;
  }
}

async function serveDisks(qmp: QmpSession, { copy, address, secret }: IncomingPlan, port: number): Promise<void> {
  const tls = secret ? { "tls-creds": TLS } : {};
  await qmp.execute("nbd-server-start", { addr: { type: "inet", data: { host: address, port: String(port) } }, ...tls });
  await Promise.all(
    copy.map(({ disk }) =>
      qmp.execute("block-export-add", {
        type: "nbd",
        id: nameOf(disk),
        "node-name": deviceNode(disk),
        name: disk,
        writable: true,
      }),
    ),
  );
}

/** Tries ports one by one until one is free. */
async function onFreePort(
  ports: Iterator<number>,
  address: string,
  listenOn: (port: number) => Promise<unknown>,
): Promise<number> {
  for (;;) {
    const next = ports.next();
    if (next.done) throw new UserError("NoPortLeft", `no port of migration.dataPorts is free on ${address}; allow more of them`);
    try {
      await listenOn(next.value);
      return next.value;
    } catch (error) {
      const inUse = error instanceof QmpError && error.description.includes("Address already in use");
      if (!inUse && errorCode(error) !== "EADDRINUSE") throw error;
    }
  }
}

/** Listens for a moment. Somebody else may take the port after that; the move is tried again then. */
async function tryPort(port: number, host: string): Promise<void> {
  // Whoever calls meanwhile is sent away: close() waits for all that were let in
  const server = createServer((socket) => socket.destroy());
  server.listen({ port, host });
  await once(server, "listening");
  server.close();
  await once(server, "close");
}

/** Where the guest is on its way. Events are not needed for it: it asks. */
export async function incomingState(context: QemuContext, instanceUid: string): Promise<IncomingState> {
  const found = await findIncoming(context, instanceUid);
  if (!found?.process) return "gone";
  let status: Awaited<ReturnType<typeof queryStatus>>;
  let migration: Migration;
  try {
    const qmp = await context.monitors.session(instanceUid, DEADLINE.ask);
    [status, migration] = await Promise.all([queryStatus(qmp), queryMigrate(qmp)]);
  } catch (error) {
    // QEMU ends itself when what comes in breaks off
    if (error instanceof QmpClosed && (await goneWithin(found.process, DEADLINE.closeToEnd, context.clock))) return "gone";
    throw error;
  }
  if (found.run.incoming?.resumed === true || status.running) return "running";
  return status.status !== "inmigrate" && ARRIVED.includes(migration.status ?? "") ? "complete" : "waiting";
}

/** In post-copy the CPUs' state has arrived while memory still comes. */
const ARRIVED = ["completed", "postcopy-active"];

/** Whether an event says so. */
export const hasArrived = isMigration(...ARRIVED);

/**
 * Lets the guest run. The source may know of the completion a little earlier than this side: that is waited for. `cont` is never
 * sent before: QEMU would keep it in mind and start the guest by itself. `ownDisks` is waited for once the guest is all here: with
 * an export that can be written to, `cont` could not lock its disk, and nothing makes up for that later.
 */
export async function resume(
  context: QemuContext,
  events: MoveEvents,
  instanceUid: string,
  ownDisks: () => Promise<void>,
): Promise<void> {
  const { until, stop } = events.listen(instanceUid);
  try {
    let state = await incomingState(context, instanceUid);
    if (state === "waiting") {
      const arrived = isMigration(...ARRIVED, "failed");
      await until(arrived, "the guest's state", { ms: MOVE_DEADLINE.complete });
      state = await incomingState(context, instanceUid);
    }
    if (state !== "complete" && state !== "running") throw new Error(`the guest cannot run here: its state is ${state}`);
    const qmp = await context.monitors.session(instanceUid, DEADLINE.ask);
    if (state === "complete") await ownDisks();
    // RARP again at once: the network's switches take it as the sign that the guest is here now
    await Promise.all([
      ...(state === "complete" ? [qmp.execute("cont"), qmp.execute("announce-self", ANNOUNCE)] : []),
      updateIncoming(context, instanceUid, (incoming) => ({ ...incoming, resumed: true })),
    ]);
  } finally {
    stop();
  }
}

const ANNOUNCE = { initial: 20, max: 500, rounds: 5, step: 100 };

/**
 * Nobody but the guest writes to its disks from here on. To be called once all of it has arrived: then the source has ended its
 * mirrors, and nothing is on its way by its connections any more. May be repeated.
 */
export async function closeExports(context: QemuContext, events: MoveEvents, instanceUid: string): Promise<void> {
  const { until, stop } = events.listen(instanceUid);
  try {
    const qmp = await context.monitors.session(instanceUid, DEADLINE.ask);
    const ids = await queryMoveExports(qmp);
    const options = { deadlineMs: MOVE_DEADLINE.closeInPause };
    await Promise.all(ids.map((id) => qmp.execute("block-export-del", { id, mode: "hard" }, options)));
    for (const id of ids) {
      const gone = (event: QmpEvent): boolean => event.name === "BLOCK_EXPORT_DELETED" && event.data["id"] === id;
      await until(gone, `closing disk export ${id}`, { ms: MOVE_DEADLINE.closeInPause });
    }
  } finally {
    stop();
  }
}

/** Takes exports that are left, server and credentials away. May be repeated, also when some of it failed. */
export async function closeDisks(context: QemuContext, events: MoveEvents, instanceUid: string): Promise<void> {
  const found = await findIncoming(context, instanceUid);
  if (found?.process) {
    const qmp = await context.monitors.session(instanceUid, DEADLINE.ask);
    await closeExports(context, events, instanceUid);
    await stopServer(qmp);
    if ((await queryMoveObjects(qmp)).length > 0) {
      await setParameters(qmp, { "tls-creds": "" });
      await qmp.execute("object-del", { id: TLS });
    }
  }
  await removeSecret(context.paths, instanceUid);
}

async function stopServer(qmp: QmpSession): Promise<void> {
  try {
    await qmp.execute("nbd-server-stop");
  } catch (error) {
    if (!(error instanceof QmpError) || !error.description.includes("not running")) throw error;
  }
}

/** Ends it and forgets that it was. May be repeated; throws when the guest runs, or ran, in it. */
export async function abandon(context: QemuContext, instanceUid: string): Promise<void> {
  const found = await findIncoming(context, instanceUid);
  if (found) {
    const { run, process } = found;
    if (run.incoming?.resumed === true) throw new Error("the guest ran here; it cannot be abandoned");
    if (process) {
      if (await runs(context, instanceUid)) throw new Error("the guest runs here by now; it cannot be abandoned");
      await endProcess(context, instanceUid, process);
    }
    await context.notes.update(instanceUid, ({ run: noted, ...note }) =>
      noted?.startedAt === run.startedAt || noted === undefined ? note : { ...note, run: noted },
    );
    context.children.delete(instanceUid);
    await context.cgroups.remove(run.claimUid);
  }
  await removeSecret(context.paths, instanceUid);
}

/** One that does not answer never got `cont`: whoever sends it waits for the answer. */
async function runs(context: QemuContext, instanceUid: string): Promise<boolean> {
  try {
    return (await queryStatus(await context.monitors.session(instanceUid, DEADLINE.ask))).running;
  } catch (error) {
    context.log.debug({ instanceUid, error: errorText(error) }, "the QEMU that is abandoned does not answer");
    return false;
  }
}

/** The run that came in, or waits to, and its process if that lives. */
async function findIncoming(context: QemuContext, instanceUid: string): Promise<{ run: Run; process?: ProcessId } | undefined> {
  const run = (await context.notes.read(instanceUid))?.run;
  if (!run?.incoming) return undefined;
  const process = run.exit ? undefined : await findProcess(run, context.cgroups);
  return { run, ...(process ? { process } : {}) };
}

type Incoming = NonNullable<Run["incoming"]>;

async function updateIncoming(
  context: QemuContext,
  instanceUid: string,
  change: (incoming: Incoming) => Incoming,
): Promise<void> {
  await context.notes.update(instanceUid, (note: InstanceNote) =>
    note.run?.incoming ? { ...note, run: { ...note.run, incoming: change(note.run.incoming) } } : note,
  );
}
