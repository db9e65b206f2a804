/**
 * Post-copy: the guest runs at the target, and the rest of its memory follows. A link that breaks takes nothing with it: both QEMUs keep
 * what they have, the guest waits for the page that it lacks, and the rest goes over a new connection once the agents have one.
 */
import type { MigrationSource } from "../../../crds/migration.ts";
import { errorText } from "../../errors.ts";
import type { SideParts } from "../parts.ts";
import type { Underway } from "../underway.ts";
import { bytesText } from "../words.ts";
import type { Caller } from "./caller.ts";
import { progressWords } from "./words.ts";

/** How often it is told how much is left, and asked where to send it. */
const EVERY_MS = 2_000;

export interface RestParts extends Pick<SideParts, "moves" | "clock" | "log"> {
  instanceUid: string;
  underway: Underway;
  caller: () => Caller;
  say: (words: Partial<MigrationSource>) => void;
  /** What is said is written at once, though the guest may stand still. */
  unhold: () => void;
  /** Looks again, if nothing happens before. */
  later: (ms: number) => void;
}

export class Rest {
  readonly #parts: RestParts;
  /** The connection of the agents while which it has left without trouble: with another one, QEMU's may be broken as well. */
  #by: unknown;
  #broken = false;
  #lookedAt = Number.NEGATIVE_INFINITY;

  constructor(parts: RestParts) {
    this.#parts = parts;
  }

  /** One of the QEMUs says that its connection broke. */
  interrupted(): void {
    this.#broken = true;
    this.#lookedAt = Number.NEGATIVE_INFINITY;
  }

  /** To be repeated as long as memory is missing at the target. `goBy`: the connection by which the guest was let go. */
  keepSending(goBy: unknown): void {
    const { clock, later } = this.#parts;
    const caller = this.#parts.caller();
    this.#by ??= goBy;
    if (caller.open && caller.connection !== this.#by) this.#broken = true;
    const left = this.#lookedAt + EVERY_MS - clock.monotonic();
    later(left > 0 ? left : EVERY_MS);
    if (left > 0) return;
    this.#lookedAt = clock.monotonic();
    if (this.#broken && !this.#parts.underway.has(SENDING)) caller.send({ type: "want-rest" });
    this.#parts.underway.start("telling how much of the memory is left", () => this.#tell(caller));
  }

  /** The target listens there. */
  send(offer: { address: string; ramPort: number }): void {
    const { moves, underway, instanceUid, caller, log } = this.#parts;
    underway.start(SENDING, async () => {
      const by = caller().connection;
      await moves.sendRest(instanceUid, offer);
      this.#by = by;
      this.#broken = false;
      log.info({ instanceUid }, "the rest of the guest's memory is on its way again");
    });
  }

  /** All of it has left (`sent`), or never will. */
  ended(sent: boolean): void {
    this.#parts.say({ message: undefined, stalled: undefined, ...(sent ? { progress: "100%" } : {}) });
  }

  async #tell(caller: Caller): Promise<void> {
    const { moves, instanceUid, say, unhold, log } = this.#parts;
    try {
      const counters = await moves.counters(instanceUid);
      const left = bytesText(counters.memory.remainingBytes);
      const trouble = caller.open ? "" : `: ${caller.trouble}`;
      const message =
        this.#broken || !caller.open
          ? `${left} of its memory are still at the source, and the link between the nodes broke${trouble}; the guest waits for what it lacks, and goes on when the link is back`
          : `${left} of its memory are still to follow`;
      if (!caller.open) unhold();
      say({ ...progressWords(counters), expectedPauseMs: undefined, message });
    } catch (error) {
      log.debug({ instanceUid, error: errorText(error) }, "QEMU does not tell how much is left");
    }
  }
}

const SENDING = "sending the rest of the memory over a new connection";
