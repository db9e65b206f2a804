/** The guest agent inside a guest, over its own socket. Whatever answers there is the guest's: believed in nothing but its answers' form. */
import { connect, type Socket } from "node:net";
import { realClock, type Clock } from "../../../kube/clock.ts";
import { QmpClosed, QmpError, QmpTimeout } from "./qmp/errors.ts";
import { encode, isObject, LineDecoder, type JsonObject } from "./qmp/wire.ts";

/** A guest agent's answers to what we ask are small. */
const LINE_LIMIT = 64 * 1024;

/**
 * One request on a connection of its own: the port serves one client at a time, and what an earlier client left unread is
 * skipped by a number only this request knows. Throws QmpTimeout when nobody answers within the deadline.
 */
async function ask(
  socketPath: string,
  command: string,
  args: JsonObject,
  options: { deadlineMs: number; clock: Clock; answers: boolean },
): Promise<unknown> {
  const { deadlineMs, clock, answers } = options;
  const socket = connect(socketPath);
  const timer = clock.setTimeout(() => socket.destroy(new QmpTimeout(`guest agent: ${command}`, deadlineMs)), deadlineMs);
  try {
    const replies = messagesOf(socket);
    const mark = Math.floor(clock.monotonic() * 1000);
    socket.write(
      Buffer.concat([Buffer.from([0xff]), Buffer.from(encode({ execute: "guest-sync-delimited", arguments: { id: mark } }))]),
    );
    await until(replies, (reply) => reply["return"] === mark);
    socket.write(encode({ execute: command, arguments: args }));
    if (!answers) {
      await new Promise<void>((resolve) => {
        socket.end(resolve);
      });
      return undefined;
    }
    const reply = await until(replies, () => true);
    const error = reply["error"];
    if (isObject(error)) throw new QmpError(`guest agent: ${command}`, String(error["class"]), String(error["desc"]));
    return reply["return"];
  } finally {
    clock.clearTimeout(timer);
    socket.destroy();
  }
}

/** The next message that is the one. (A for-await loop left early would end the stream.) */
async function until(
  messages: AsyncGenerator<JsonObject, void, undefined>,
  isIt: (message: JsonObject) => boolean,
): Promise<JsonObject> {
  for (;;) {
    const next = await messages.next();
    if (next.done) throw new QmpClosed("the connection to the guest agent ended");
    if (isIt(next.value)) return next.value;
  }
}

async function* messagesOf(socket: Socket): AsyncGenerator<JsonObject, void, undefined> {
  const decoder = new LineDecoder(LINE_LIMIT);
  for await (const chunk of socket) yield* decoder.push(chunk as Buffer);
}

/** Whether a guest agent answers within the deadline. */
export async function pingGuestAgent(socketPath: string, deadlineMs: number, clock: Clock = realClock): Promise<boolean> {
  try {
    await ask(socketPath, "guest-ping", {}, { deadlineMs, clock, answers: true });
    return true;
  } catch {
    // any failure is the answer: nobody there
    return false;
  }
}

/** Asks the guest agent to shut the guest down. It answers a success by nothing; throws when no agent takes the request. */
export async function shutdownByGuestAgent(socketPath: string, deadlineMs: number, clock: Clock = realClock): Promise<void> {
  await ask(socketPath, "guest-shutdown", { mode: "powerdown" }, { deadlineMs, clock, answers: false });
}
