/**
 * The switch: the guest stands still from the old QEMU's STOP to the new one's RESUME, and nothing is done in between that could be done
 * before or after. The old one sends the guest's memory as descriptors; only then the new one makes its machine, and answers; then it is
 * told to listen for the rest, which is what stops the guest.
 */
import { UserError } from "../../../errors.ts";
import type { SwitchOptions, UpdateMark } from "../../update.ts";
import { DEADLINE } from "../context.ts";
import { queryCapabilities, queryMigrate, setCapabilities, setParameters } from "../move/commands.ts";
import { isSettling } from "../move/left.ts";
import { isMigration, MoveEvents } from "../move/events.ts";
import { UNLIMITED } from "../move/names.ts";
import { monitorOf, type MoveParts } from "../move/parts.ts";
import { queryStatus, queryVersion } from "../qmp/commands.ts";
import { QmpTimeout } from "../qmp/errors.ts";
import type { QmpEvent, QmpSession } from "../qmp/session.ts";
import type { JsonObject } from "../qmp/wire.ts";
import { canHandOver, tooOld } from "./blockers.ts";

/** From the word to listen until the guest stands still: connecting, and what its devices have on their way. */
const STOP_MS = 10_000;
/** No policy can ask for less: giving up takes as long. */
const LEAST_PAUSE_MS = 100;
/** From the word to run until it runs. */
const RESUME_MS = 5_000;

const channel = (type: "main" | "cpr", directory: string): JsonObject => ({
  "channel-type": type,
  addr: { transport: "socket", type: "unix", path: `${directory}/${type}` },
});
/** The old one sees the directory below its read-only /vm; the new one has it by itself, to make the sockets in it. */
const FROM_OLD = { channels: [channel("main", "/vm/sockets"), channel("cpr", "/vm/sockets")] };
const AT_NEW = { channels: [channel("main", "/sockets")] };

/** With a way back the old one learns of a load that failed, and lets the guest run on by itself. */
const CAPABILITIES = { events: true, "return-path": true };

/** What a migration of the old one is, whatever moves before it were: without their limits. A move to another node is to be an ordinary one. */
export const HANDING_OVER = { mode: "cpr-transfer", "max-bandwidth": UNLIMITED, "tls-creds": "" };
export const ORDINARY = { mode: "normal" };

/**
 * QEMU would tell the network where the guest is five times, and have the guest do so too, in the very moments in which that has to answer what
 * waits for it. Nothing has moved: the address is behind the same port. Once it has to be: with no round at all QEMU's virtio-net has no
 * timer for it, and the guest's next reset of the NIC, as in every shutdown, reaches for that one: SIGSEGV (seen with 10.0.13).
 */
const LITTLE_TO_ANNOUNCE = { "announce-rounds": 1 };

const isStop = ({ name }: QmpEvent): boolean => name === "STOP";
const isResume = ({ name }: QmpEvent): boolean => name === "RESUME";
const isEnd = isMigration("completed", "failed", "cancelled");

export interface Switching extends SwitchOptions {
  instanceUid: string;
  /** To be called right before the new one gets the memory. */
  noteServed: () => Promise<void>;
  /** The new one's monitor, once it answers. */
  connect: () => Promise<QmpSession>;
  /** What it is, as it says. */
  noteVersion: (qemuVersion: string) => Promise<void>;
  mark: (name: UpdateMark["name"], at?: number) => void;
}

/** Resolves when the guest runs in the new one, with its monitor. */
export async function switchOver(parts: MoveParts, switching: Switching): Promise<QmpSession> {
  const { instanceUid, mark, noted } = switching;
  const old = await monitorOf(parts, instanceUid);
  const fromOld = parts.events.listen(instanceUid);
  try {
    const young = await begin(old, switching);
    const events = new MoveEvents(parts.context.clock);
    const stopHearing = young.onEvent((event) => events.tell(instanceUid, event));
    void young.closed.then(() => events.tell(instanceUid, "closed"));
    const fromNew = events.listen(instanceUid);
    const resuming = events.listen(instanceUid);
    try {
      await young.execute("migrate-incoming", AT_NEW);
      const stop = await fromOld.until((event) => isStop(event) || isEnd(event), "stopping the guest", { ms: STOP_MS });
      if (!isStop(stop)) throw await failure(old);
      mark("stopped", stop.at);
      const ms = Math.max(LEAST_PAUSE_MS, switching.maxPauseMs);
      const loaded = fromNew.until(isEnd, "loading the guest's state", { ms }).then(() => {
        mark("loaded");
        // here, not by `cont`: should a disk's lock not be had, the old one can still go on
        return young.execute("blockdev-set-active", { active: true }, { deadlineMs: ms });
      });
      const completing = fromOld.until(isEnd, "handing the guest over", { ms }).then(async ({ data }) => {
        if (data["status"] !== "completed") throw await failure(old);
      });
      await Promise.all([completing, loaded]).catch((cause: unknown) => {
        throw tooLong(ms, cause);
      });
      mark("complete");
      await noted(() => {
        if (young.isClosed) throw new Error("the new QEMU ended when it had all of the guest");
      });
      mark("noted");
      await letRun(young);
      mark("continued");
      const resumed = resuming.until(isResume, "the guest's run", { ms: RESUME_MS });
      mark("resumed", (await resumed).at);
      return young;
    } finally {
      stopHearing();
      fromNew.stop();
      resuming.stop();
    }
  } finally {
    fromOld.stop();
  }
}

/** The new one has the memory, has made its machine, and answers; the guest runs. */
async function begin(old: QmpSession, switching: Switching): Promise<QmpSession> {
  const { noteServed, connect, noteVersion, mark } = switching;
  const { status, running } = await queryStatus(old);
  if (!running)
    throw new UserError("GuestNotRunning", `the guest does not run at present (${status}); its QEMU is replaced when it does`);
  const migration = await queryMigrate(old);
  // an agent may have died since it began
  if (migration.status !== "setup") {
    const off = Object.fromEntries((await queryCapabilities(old)).map((name) => [name, false]));
    await setCapabilities(old, { ...off, ...CAPABILITIES });
    await setParameters(old, HANDING_OVER);
    await noteServed();
    await old.execute("migrate", FROM_OLD);
  }
  mark("sent");
  const young = await connect();
  const version = await queryVersion(young);
  if (!canHandOver(version)) throw new UserError("QEMUTooOld", tooOld(version));
  await setCapabilities(young, CAPABILITIES);
  await setParameters(young, LITTLE_TO_ANNOUNCE);
  await noteVersion(version);
  mark("listening");
  return young;
}

const ENDED = new Set(["shutdown", "guest-panicked", "internal-error"]);

/** Lets the guest run, unless it has ended by itself in its last moment before: whoever looks next sees that. */
export async function letRun(young: QmpSession): Promise<void> {
  try {
    await young.execute("cont", {}, { deadlineMs: RESUME_MS });
  } catch (error) {
    if (ENDED.has((await queryStatus(young)).status)) return;
    throw error;
  }
}

/** What QEMU says of why handing over ended. */
async function failure(old: QmpSession): Promise<Error> {
  const { status, "error-desc": words } = await queryMigrate(old);
  return new Error(words ?? `QEMU says ${status ?? "nothing"}`);
}

function tooLong(ms: number, cause: unknown): unknown {
  const isLate = cause instanceof QmpTimeout || (cause instanceof Error && cause.message.includes(`not within ${ms} ms`));
  if (!isLate) return cause;
  return new UserError(
    "PauseTooLong",
    `the guest would have stood still for longer than ${ms} ms (policy.maxPause), so it goes on in its old QEMU`,
    { cause },
  );
}

/** Whatever became of the switch, and once the new one is gone: the guest runs on in the old one. May be repeated. */
export async function goOnInOld(parts: MoveParts, instanceUid: string, wait: (ms: number) => Promise<void>): Promise<void> {
  const { clock } = parts.context;
  const old = await monitorOf(parts, instanceUid);
  for (const end = clock.monotonic() + SETTLE_MS; ; await wait(SETTLE_LOOK_MS)) {
    const [run, migration] = await Promise.all([queryStatus(old), queryMigrate(old)]);
    if (!isUnderWay(migration.status) && !isSettling(migration, run)) {
      if (run.status === "postmigrate") await old.execute("cont", {}, { deadlineMs: DEADLINE.ask });
      break;
    }
    if (migration.status === "setup") await old.execute("migrate_cancel");
    if (clock.monotonic() >= end)
      throw new Error(`the old QEMU is still ${migration.status ?? "migrating"} after ${SETTLE_MS} ms`);
  }
  await setParameters(old, ORDINARY);
}

const SETTLE_MS = 5_000;
const SETTLE_LOOK_MS = 10;

const OVER = new Set([undefined, "none", "completed", "failed", "cancelled"]);

export const isUnderWay = (status: string | undefined): boolean => !OVER.has(status);
