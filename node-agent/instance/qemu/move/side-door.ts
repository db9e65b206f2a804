/**
 * A connection to a guest's other monitor, opened before anything can hang and used for nothing but breaking the move's
 * connections: QEMU's main loop may wait for a dead link, and then only what comes out of band on a connection that was made
 * before is heard.
 */
import { join } from "node:path";
import { errorText } from "../../../errors.ts";
import { HANDED } from "../command-line.ts";
import type { QemuContext } from "../context.ts";
import { QmpSession } from "../qmp/session.ts";
import { queryYank } from "./commands.ts";
import { MOVE_DEADLINE } from "./names.ts";

export class SideDoor {
  readonly #context: QemuContext;
  readonly #instanceUid: string;
  #session: QmpSession | undefined;

  constructor(context: QemuContext, instanceUid: string) {
    this.#context = context;
    this.#instanceUid = instanceUid;
  }

  /** May be repeated. Throws when neither monitor answers. */
  async open(): Promise<void> {
    await this.#open();
  }

  /** Breaks every connection of the move. Also with a main loop that hangs, if the door was open by then. */
  async yank(): Promise<void> {
    const session = await this.#open();
    const options = { outOfBand: true, deadlineMs: MOVE_DEADLINE.yank };
    const instances = await queryYank(session, MOVE_DEADLINE.yank);
    // one at a time: when one is gone meanwhile, QEMU refuses all of a list
    for (const instance of instances) {
      try {
        await session.execute("yank", { instances: [instance] }, options);
      } catch (error) {
        this.#context.log.debug({ instanceUid: this.#instanceUid, error: errorText(error) }, "a connection is gone already");
      }
    }
  }

  close(): void {
    this.#session?.close();
    this.#session = undefined;
  }

  async #open(): Promise<QmpSession> {
    if (this.#session && !this.#session.isClosed) return this.#session;
    const { paths, clock } = this.#context;
    const directory = paths.instanceVm(this.#instanceUid);
    const options = { clock, greetingMs: MOVE_DEADLINE.monitor };
    const connect = (name: string): Promise<QmpSession> => QmpSession.connect(join(directory, name), options);
    // the driver's own connection is at one of the two, the first as a rule
    this.#session = await connect(HANDED.qmp2.name).catch(() => connect(HANDED.qmp.name));
    return this.#session;
  }
}
