/** The control socket of an OVS daemon: JSON-RPC, and a connection that stays open exactly as long as the daemon lives. */
import { watch } from "node:fs";
import { connect, type Socket } from "node:net";
import { dirname } from "node:path";
import { z } from "zod";
import { errorCode } from "../errors.ts";

const reply = z.object({ result: z.string().nullish(), error: z.string().nullish() });

/** Resolves with the daemon's answer as text. Throws its words, or when it does not answer within `deadlineMs`. */
export async function control(path: string, method: string, args: string[], deadlineMs: number): Promise<string> {
  const socket = await open(path, deadlineMs);
  try {
    return await new Promise<string>((resolve, reject) => {
      const timer = setTimeout(() => reject(new Error(`${path} did not answer ${method} within ${deadlineMs} ms`)), deadlineMs);
      let text = "";
      socket.setEncoding("utf8");
      socket.on("error", reject);
      socket.on("close", () => reject(new Error(`${path} was closed before it answered ${method}`)));
      socket.on("data", (chunk: string) => {
        text += chunk;
        const message = parse(text);
        if (message === undefined) return;
        clearTimeout(timer);
        if (message.error === null || message.error === undefined) resolve(message.result ?? "");
        else reject(new Error(`${method}: ${message.error}`));
      });
      socket.write(JSON.stringify({ id: 1, method, params: args }));
    });
  } finally {
    socket.destroy();
  }
}

/** One reply, once it is whole. */
function parse(text: string): z.infer<typeof reply> | undefined {
  try {
    return reply.parse(JSON.parse(text));
  } catch (error) {
    if (error instanceof SyntaxError) return undefined;
    throw error;
  }
}

/** Calls `onEnd` once when the daemon behind the socket ends. Resolves when connected; gives the way to stop watching. */
export async function watchEnd(path: string, deadlineMs: number, onEnd: () => void): Promise<() => void> {
  const socket = await open(path, deadlineMs);
  socket.on("error", () => socket.destroy());
  socket.once("close", onEnd);
  socket.resume();
  return () => {
    socket.off("close", onEnd);
    socket.destroy();
  };
}

/** Waits until something listens at the path. Throws after the deadline or when the signal aborts. */
export async function whenListening(path: string, deadlineMs: number, signal?: AbortSignal): Promise<void> {
  const deadline = AbortSignal.timeout(deadlineMs);
  const stop = signal === undefined ? deadline : AbortSignal.any([deadline, signal]);
  const watcher = watch(dirname(path));
  watcher.on("error", () => undefined);
  try {
    for (;;) {
      const changed = new Promise<void>((resolve) => {
        watcher.once("change", () => resolve());
        stop.addEventListener("abort", () => resolve(), { once: true });
        // Between bind and listen there is a moment without an event.
        setTimeout(resolve, 50).unref();
      });
      const failure = await open(path, deadlineMs).then(
        (socket) => void socket.destroy(),
        (error: unknown) => error,
      );
      if (failure === undefined) return;
      if (!["ENOENT", "ECONNREFUSED"].includes(errorCode(failure) ?? "")) throw failure;
      if (stop.aborted) throw new Error(`nothing listened at ${path} within ${deadlineMs} ms`, { cause: failure });
      await changed;
    }
  } finally {
    watcher.close();
  }
}

function open(path: string, deadlineMs: number): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const socket = connect({ path });
    const timer = setTimeout(() => socket.destroy(new Error(`no connection to ${path} within ${deadlineMs} ms`)), deadlineMs);
    socket.once("error", (error) => {
      clearTimeout(timer);
      reject(error);
    });
    socket.once("connect", () => {
      clearTimeout(timer);
      socket.removeAllListeners("error");
      resolve(socket);
    });
  });
}
