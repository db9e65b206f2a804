/** Commands in a guest that runs, by its guest agent. */
import { connect } from "node:net";
import { join } from "node:path";

/** Begins it; `vmDirectory` is where the instance's sockets are. Throws when the guest agent does not answer. */
export async function inGuest(vmDirectory: string, ...command: [string, ...string[]]): Promise<void> {
  const [path, ...arg] = command;
  const socket = connect(join(vmDirectory, "qga"));
  try {
    await new Promise<void>((resolve, reject) => {
      const timer = setTimeout(() => reject(new Error("the guest agent does not answer")), 20_000);
      socket.on("error", reject);
      socket.on("data", (data: Buffer) => {
        if (!data.toString().includes('"pid"')) return;
        clearTimeout(timer);
        resolve();
      });
      socket.write(`${JSON.stringify({ execute: "guest-exec", arguments: { path, arg } })}\n`);
    });
  } finally {
    socket.destroy();
  }
}
