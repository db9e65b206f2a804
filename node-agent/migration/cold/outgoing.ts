/** The source's side of a cold move: sends the disks of an instance that does not run, and the marker behind them. */
import { UserError } from "../../errors.ts";
import type { InstanceDriver } from "../../instance/driver.ts";
import type { MoveCounters, MoveEvent, OutgoingPlan, OutgoingState } from "../../instance/move.ts";
import { isAlive } from "../../instance/plan.ts";
import type { GuestIdentity } from "../../types.ts";
import { makeMarker } from "./marker.ts";
import { MARKER, MARKER_BYTES, markerContent, progressOf, sender } from "./programs.ts";
import { runConfined } from "./run.ts";
import type { ColdState, ColdStates } from "./state.ts";

/** Whose disks they are on this node, and where they lie. */
export interface ColdDisks {
  identity: GuestIdentity;
  pathOf: (disk: string) => string;
}

export interface ColdOutgoingParts {
  states: ColdStates;
  driver: Pick<InstanceDriver, "observe">;
  disks: (instanceUid: string) => Promise<ColdDisks>;
  tell: (instanceUid: string, event: MoveEvent) => void;
}

interface Sending {
  stop: AbortController;
  doneBytes: number;
  totalBytes: number;
  startedAt: number;
}

type Sent = Extract<ColdState, { address: string }>;

export class ColdOutgoing {
  readonly #parts: ColdOutgoingParts;
  readonly #sending = new Map<string, Sending>();

  constructor(parts: ColdOutgoingParts) {
    this.#parts = parts;
  }

  async state(instanceUid: string): Promise<OutgoingState> {
    const state = await this.#sent(instanceUid);
    return state === undefined ? "idle" : state.phase === "copied" ? "copying" : state.phase;
  }

  /** Sends every disk, from the beginning. Resolves when all are on the target's storage. */
  async copyDisks(
    instanceUid: string,
    { copy, offer, secret, maxBytesPerSecond }: OutgoingPlan,
    signal: AbortSignal,
  ): Promise<void> {
    const totalBytes = copy.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
    const sending: Sending = { stop: new AbortController(), doneBytes: 0, totalBytes, startedAt: performance.now() };
    this.#sending.get(instanceUid)?.stop.abort();
    this.#sending.set(instanceUid, sending);
    const both = AbortSignal.any([signal, sending.stop.signal]);
    let before = 0;
    for (const { disk, sizeBytes } of copy) {
      await this.#stopped(instanceUid);
      const { identity, pathOf } = await this.#parts.disks(instanceUid);
      await runConfined({
        program: sender(disk, { address: offer.address, port: offer.diskPort ?? 0, secret, maxBytesPerSecond }),
        files: [{ path: pathOf(disk), write: false }],
        user: identity,
        largestBytes: 0,
        secret,
        onOutput: (text) => {
          const share = progressOf(text);
          if (share !== undefined) sending.doneBytes = before + Math.floor(share * sizeBytes);
        },
        signal: both,
      });
      both.throwIfAborted();
      before += sizeBytes;
      sending.doneBytes = before;
    }
  }

  /** There is no memory to copy: notes that the disks have left. */
  async copied(instanceUid: string, { offer, secret }: OutgoingPlan): Promise<void> {
    if ((await this.#sent(instanceUid)) !== undefined) return;
    const { address, ramPort: port } = offer;
    await this.#parts.states.write(instanceUid, { phase: "copied", address, port, ...(secret === undefined ? {} : { secret }) });
    this.#parts.tell(instanceUid, { kind: "state" });
  }

  async hold(instanceUid: string): Promise<void> {
    const state = await this.#sent(instanceUid);
    if (state?.phase === "copied") await this.#parts.states.write(instanceUid, { ...state, phase: "held" });
    this.#parts.tell(instanceUid, { kind: "held" });
  }

  /** Tells the target that it has everything: by the same way as the disks, and so behind them. */
  async finish(instanceUid: string, signal: AbortSignal): Promise<void> {
    const { states, disks, tell } = this.#parts;
    const state = await this.#sent(instanceUid);
    if (state?.phase === "complete") return;
    if (state?.phase !== "held") throw new Error("the disks have not been copied");
    await this.#stopped(instanceUid);
    const { identity } = await disks(instanceUid);
    const marker = await makeMarker(states.directory(instanceUid), identity, markerContent());
    const { address, port, secret } = state;
    await runConfined({
      program: sender(MARKER, { address, port, secret, maxBytesPerSecond: undefined }),
      files: [{ path: marker, write: false }],
      user: identity,
      largestBytes: MARKER_BYTES,
      secret,
      onOutput: () => undefined,
      signal,
    });
    signal.throwIfAborted();
    await states.write(instanceUid, { ...state, phase: "complete" });
    tell(instanceUid, { kind: "complete" });
  }

  /** Nothing of the move is left here. The disks are as they were. */
  async giveUp(instanceUid: string): Promise<void> {
    this.#sending.get(instanceUid)?.stop.abort();
    this.#sending.delete(instanceUid);
    await this.#parts.states.remove(instanceUid);
  }

  counters(instanceUid: string): MoveCounters {
    const { doneBytes, totalBytes, startedAt } = this.#sending.get(instanceUid) ?? NOTHING;
    const seconds = (performance.now() - startedAt) / 1_000;
    return {
      disk: { doneBytes, totalBytes },
      memory: {
        doneBytes: 0,
        totalBytes: 0,
        remainingBytes: 0,
        bytesPerSecond: seconds > 0 ? Math.floor(doneBytes / seconds) : 0,
        dirtyBytesPerSecond: 0,
        // As if its passes were over: what is left always fits.
        rounds: 2,
      },
      expectedPauseMs: 0,
    };
  }

  async #sent(instanceUid: string): Promise<Sent | undefined> {
    const state = await this.#parts.states.read(instanceUid);
    return state !== undefined && "address" in state ? state : undefined;
  }

  /** Its disks must not change under the copy; QEMU's lock on them says the same, should this look come too early. */
  async #stopped(instanceUid: string): Promise<void> {
    const observed = await this.#parts.driver.observe(instanceUid);
    if (isAlive(observed)) throw new UserError("InstanceRuns", "the guest runs; only a stopped one can be moved by mode Cold");
  }
}

const NOTHING: Pick<Sending, "doneBytes" | "totalBytes" | "startedAt"> = { doneBytes: 0, totalBytes: 0, startedAt: 0 };
