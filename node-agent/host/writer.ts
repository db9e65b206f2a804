/** Writes the Host object of a node, as seldom as it can. */
import { AGENT_MANAGER, API_VERSION } from "../../crds/names.ts";
import type { Host, HostStatus } from "../../crds/host.ts";
import { hosts } from "../../crds/resources.ts";
import { ApiError, backoffMs, sameStatus, type Clock, type KubeClient, type Logger } from "../../kube/index.ts";
import { errorText } from "../errors.ts";
import { onlyFigures } from "./status.ts";

/** Between two writes. */
const PACE_MS = 1_000;
/** Before a write that changes only figures that nobody waits for. */
const FIGURES_MS = 15_000;

export interface HostWriterOptions {
  client: Pick<KubeClient, "apply">;
  nodeName: string;
  /** Of the Node object: the Host goes with it. */
  nodeUid: () => string | undefined;
  clock: Clock;
  log: Logger;
}

export class HostWriter {
  readonly #options: HostWriterOptions;
  #written: HostStatus | undefined;
  #exists = false;
  #next: HostStatus | undefined;
  #timer: { handle: ReturnType<Clock["setTimeout"]>; at: number } | undefined;
  #writing: Promise<void> | undefined;
  #lastWrite = Number.NEGATIVE_INFINITY;
  #failures = 0;
  #closed = false;

  constructor(options: HostWriterOptions) {
    this.#options = options;
  }

  /** What was said last: what the next status is compared with. */
  get said(): HostStatus | undefined {
    return this.#next ?? this.#written;
  }

  /** The object as the API server has it: what is written there already is not written again, and what is lost is. */
  seen(host: Host | undefined): void {
    this.#exists = host !== undefined;
    // Our own writes come back late; only the first sight and a loss tell something new.
    if (host !== undefined && this.#written === undefined) this.#written = host.status;
    if (host === undefined && this.#written !== undefined) {
      this.#next ??= this.#written;
      this.#written = undefined;
      this.#schedule(PACE_MS);
    }
  }

  /** Says it: within a second when someone may wait for it, later when only figures moved. Never throws. */
  say(status: HostStatus): void {
    if (this.#closed) return;
    if (this.#written !== undefined && sameStatus(this.#written, status) && this.#writing === undefined) {
      this.#next = undefined;
      this.#cancel();
      return;
    }
    this.#next = status;
    this.#schedule(this.#patience(status));
  }

  #patience(status: HostStatus): number {
    return this.#written !== undefined && onlyFigures(this.#written, status) ? FIGURES_MS : 0;
  }

  /** Writes nothing more; waits for a write that is under way. */
  async close(): Promise<void> {
    this.#closed = true;
    this.#cancel();
    await this.#writing;
  }

  #cancel(): void {
    this.#options.clock.clearTimeout(this.#timer?.handle);
    this.#timer = undefined;
  }

  #schedule(waitMs: number): void {
    const { clock } = this.#options;
    if (this.#closed || this.#writing !== undefined) return;
    const at = Math.max(clock.monotonic() + waitMs, this.#lastWrite + PACE_MS);
    if (this.#timer !== undefined && this.#timer.at <= at) return;
    this.#cancel();
    const handle = clock.setTimeout(() => {
      this.#timer = undefined;
      this.#writing = this.#write().finally(() => {
        this.#writing = undefined;
        if (this.#next === undefined) return;
        this.#schedule(
          this.#failures === 0 ? this.#patience(this.#next) : backoffMs(this.#failures, { baseMs: PACE_MS, capMs: 30_000 }),
        );
      });
    }, at - clock.monotonic());
    this.#timer = { handle, at };
  }

  async #write(): Promise<void> {
    const { client, nodeName, clock, log } = this.#options;
    const status = this.#next;
    if (status === undefined) return;
    this.#lastWrite = clock.monotonic();
    const own = { apiVersion: API_VERSION, kind: "Host" } as const;
    try {
      if (!this.#exists) await client.apply<Host>(hosts, { ...own, metadata: this.#metadata() }, { manager: AGENT_MANAGER });
      this.#exists = true;
      await client.apply<Host>(
        hosts,
        { ...own, metadata: { name: nodeName }, status },
        { manager: AGENT_MANAGER, subresource: "status" },
      );
      this.#written = status;
      if (this.#next === status) this.#next = undefined;
      this.#failures = 0;
    } catch (error) {
      if (error instanceof ApiError && error.isNotFound) this.#exists = false;
      if (this.#failures === 0) log.warn({ node: nodeName, error: errorText(error) }, "cannot write the Host");
      this.#failures += 1;
    }
  }

  #metadata() {
    const { nodeName: name, nodeUid } = this.#options;
    const uid = nodeUid();
    return uid === undefined ? { name } : { name, ownerReferences: [{ apiVersion: "v1", kind: "Node", name, uid }] };
  }
}
