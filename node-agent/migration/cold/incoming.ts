/** The target's side of a cold move: gives out its empty disks until the source has written the marker behind the last of them. */
import { watch, type FSWatcher } from "node:fs";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import type { Logger } from "../../../kube/index.ts";
import { errorText, UserError } from "../../errors.ts";
import type { MachinePlan } from "../../instance/driver.ts";
import type { IncomingPlan, IncomingState, MoveEvent, MoveSecret, Offer } from "../../instance/move.ts";
import { portsFrom } from "../../instance/qemu/move/ports.ts";
import { exists, syncFile } from "../../pool/files.ts";
import type { GuestIdentity } from "../../types.ts";
import { makeMarker, MARKER_FILE } from "./marker.ts";
import { exporter, MARKER, markerContent } from "./programs.ts";
import { runConfined } from "./run.ts";
import type { ColdStates } from "./state.ts";

/** Until the program listens, ms. */
const LISTEN_MS = 20_000;
/** Nothing that it serves takes more memory, files or connections for that: a disk's size is its own limit. */
const HEADROOM_BYTES = 1024 ** 2;

export type ColdPlan = Omit<IncomingPlan, "machine" | "streams"> & {
  machine: Pick<MachinePlan, "instanceUid" | "identity" | "disks">;
};

export interface ColdIncomingParts {
  states: ColdStates;
  tell: (instanceUid: string, event: MoveEvent) => void;
  log: Logger;
}

interface Serving {
  offer: Offer;
  stop: AbortController;
  ended: Promise<void>;
  watcher: FSWatcher;
}

export class ColdIncoming {
  readonly #parts: ColdIncomingParts;
  readonly #serving = new Map<string, Serving>();
  readonly #closed = new AbortController();

  constructor(parts: ColdIncomingParts) {
    this.#parts = parts;
  }

  /** Listens; repeated, the same offer. Throws UserError when it cannot; nothing runs then. */
  async receive(plan: ColdPlan, signal: AbortSignal): Promise<Offer> {
    const { states } = this.#parts;
    const { instanceUid, identity, disks } = plan.machine;
    const before = this.#serving.get(instanceUid);
    if (before !== undefined) return before.offer;
    const files = plan.copy.map(({ disk }) => {
      const path = disks.find(({ id }) => id === disk)?.path;
      if (path === undefined) throw new Error(`no volume was made for disk ${disk}`);
      return path;
    });
    await states.make(instanceUid);
    const marker = await makeMarker(states.directory(instanceUid), identity, undefined);
    await states.write(instanceUid, { phase: "receiving", files });
    for (const port of portsFrom(plan.ports, instanceUid)) {
      const serving = await this.#serve(plan, [...files, marker], port, signal);
      if (serving !== undefined) return serving.offer;
    }
    throw new UserError("NoPortLeft", `no port of migration.dataPorts is free on ${plan.address}; allow more of them`);
  }

  /** Where it is; finds out by itself that all has arrived. */
  async state(instanceUid: string): Promise<IncomingState> {
    const state = await this.#parts.states.read(instanceUid);
    if (state?.phase === "running") return "running";
    if (state?.phase === "received") return "complete";
    if (state?.phase !== "receiving") return "gone";
    if (await this.#marked(instanceUid)) {
      // Nobody writes to them any more, and what was written stays.
      await this.#end(instanceUid);
      for (const file of state.files) await syncFile(file);
      await this.#parts.states.write(instanceUid, { ...state, phase: "received" });
      return "complete";
    }
    return this.#serving.has(instanceUid) ? "waiting" : "gone";
  }

  async resume(instanceUid: string): Promise<void> {
    const state = await this.#parts.states.read(instanceUid);
    if (state?.phase === "running") return;
    if (state?.phase !== "received") throw new Error("the disks have not all arrived");
    await this.#parts.states.write(instanceUid, { ...state, phase: "running" });
  }

  async abandon(instanceUid: string): Promise<void> {
    const state = await this.#parts.states.read(instanceUid);
    if (state?.phase === "running") throw new Error("the disks are this node's already");
    await this.#end(instanceUid);
    await this.#parts.states.remove(instanceUid);
  }

  async closeDisks(instanceUid: string): Promise<void> {
    await this.#end(instanceUid);
    await this.#parts.states.remove(instanceUid);
  }

  /** Ends what runs here; the move finds that out when it is taken up again. */
  async close(): Promise<void> {
    this.#closed.abort();
    await Promise.all([...this.#serving.keys()].map((uid) => this.#end(uid)));
  }

  async #end(instanceUid: string): Promise<void> {
    const serving = this.#serving.get(instanceUid);
    if (serving === undefined) return;
    serving.stop.abort();
    await serving.ended;
  }

  async #marked(instanceUid: string): Promise<boolean> {
    const file = join(this.#parts.states.directory(instanceUid), MARKER_FILE);
    return (await exists(file)) && (await readFile(file)).equals(markerContent());
  }

  /** undefined: the port is taken. */
  async #serve(plan: ColdPlan, files: readonly string[], port: number, signal: AbortSignal): Promise<Serving | undefined> {
    const { states, tell, log } = this.#parts;
    const { machine, copy, address, secret } = plan;
    const { instanceUid, identity } = machine;
    const stop = new AbortController();
    const until = AbortSignal.any([stop.signal, this.#closed.signal]);
    const listening = Promise.withResolvers<void>();
    const timer = setTimeout(() => listening.reject(new Error(`it does not listen within ${LISTEN_MS / 1_000} s`)), LISTEN_MS);
    const aborted = (): void => listening.reject(signal.reason instanceof Error ? signal.reason : new Error("ended"));
    signal.addEventListener("abort", aborted, { once: true });
    if (signal.aborted) aborted();
    const process = this.#run([...copy.map(({ disk }) => disk), MARKER], {
      files,
      largestBytes: Math.max(HEADROOM_BYTES, ...copy.map(({ sizeBytes }) => sizeBytes)),
      identity,
      place: { address, port, secret },
      onListening: () => listening.resolve(),
      signal: until,
    });
    process.then(
      () => listening.reject(new Error("it ended at once")),
      (error: unknown) => listening.reject(error),
    );
    try {
      await listening.promise;
    } catch (error) {
      stop.abort();
      await process.catch(() => undefined);
      if (signal.aborted) throw error;
      if (errorText(error).includes("Address already in use")) return undefined;
      throw new UserError("ExportFailed", `the disks cannot be given out to the other node: ${errorText(error)}`, {
        cause: error,
      });
    } finally {
      clearTimeout(timer);
      signal.removeEventListener("abort", aborted);
    }
    const watcher = watch(join(states.directory(instanceUid), MARKER_FILE), () => tell(instanceUid, { kind: "state" }));
    watcher.on("error", (error) => log.warn({ error: errorText(error) }, "the marker of a cold move cannot be watched"));
    const ended = process
      .catch((error: unknown) => log.warn({ error: errorText(error) }, "the program that takes a cold move's disks has ended"))
      .then(() => {
        watcher.close();
        this.#serving.delete(instanceUid);
        tell(instanceUid, { kind: "ended" });
      });
    const serving = { offer: { address, ramPort: port, diskPort: port, streams: 0, postCopy: false }, stop, ended, watcher };
    this.#serving.set(instanceUid, serving);
    return serving;
  }

  #run(
    names: readonly string[],
    what: {
      files: readonly string[];
      largestBytes: number;
      identity: GuestIdentity;
      place: { address: string; port: number; secret: MoveSecret | undefined };
      onListening: () => void;
      signal: AbortSignal;
    },
  ): Promise<void> {
    let said = "";
    return runConfined({
      program: exporter(names, what.place),
      files: what.files.map((path) => ({ path, write: true })),
      user: what.identity,
      largestBytes: what.largestBytes,
      secret: what.place.secret,
      onOutput: (text) => {
        if (said.length > 64) return;
        said += text;
        if (said.includes('"QMP"')) what.onListening();
      },
      signal: what.signal,
    });
  }
}
