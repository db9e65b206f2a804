/** One process per node at a time, whatever the DaemonSet does: a name in the kernel that is free again when its owner dies. */
import { connect, createServer } from "node:net";
import { setTimeout as pause } from "node:timers/promises";
import { errorCode } from "./errors.ts";

/**
 * Takes the lock, waiting for its owner's end for as long as that takes. It is held until this process ends.
 * `onWait` is called once when somebody else has it. Rejects when the signal aborts.
 *
 * An abstract unix socket is bound to the network namespace: the pods that use it are in the node's.
 */
export async function holdNodeLock(name: string, onWait: () => void, signal: AbortSignal): Promise<void> {
  const path = `\0drover/${name}`;
  for (let waited = false; ; waited = true) {
    if (await listen(path)) return;
    if (!waited) onWait();
    await ownerGone(path, signal);
    signal.throwIfAborted();
  }
}

function listen(path: string): Promise<boolean> {
  return new Promise((resolve, reject) => {
    const server = createServer((socket) => socket.on("error", () => socket.destroy()));
    server.unref();
    server.once("error", (error) => (errorCode(error) === "EADDRINUSE" ? resolve(false) : reject(error)));
    server.listen({ path }, () => resolve(true));
  });
}

/** A connection to the owner lasts as long as the owner. */
async function ownerGone(path: string, signal: AbortSignal): Promise<void> {
  await new Promise<void>((resolve) => {
    const socket = connect({ path });
    const done = (): void => {
      signal.removeEventListener("abort", done);
      socket.destroy();
      resolve();
    };
    socket.on("error", done);
    socket.on("close", done);
    socket.resume();
    signal.addEventListener("abort", done, { once: true });
    if (signal.aborted) done();
  });
  // Its socket closes a moment before its name is free.
  await pause(10);
}
