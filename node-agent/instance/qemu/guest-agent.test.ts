import { mkdtemp, rm } from "node:fs/promises";
import { createServer, type Server, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { pingGuestAgent, shutdownByGuestAgent } from "./guest-agent.ts";

type Request = { execute: string; arguments: { id?: number; mode?: string } };

let directory: string;
let server: Server | undefined;
const asked: Request[] = [];

/** A guest agent that answers each request with what `answer` gives. */
async function guestAgent(answer: (request: Request, socket: Socket) => void): Promise<string> {
  const path = join(directory, "qga");
  server = createServer((socket) => {
    socket.on("error", () => undefined);
    socket.on("data", (chunk: Buffer) => {
      for (const line of chunk.toString("latin1").replaceAll("\xff", "").split("\n").filter(Boolean)) {
        const request = JSON.parse(line) as Request;
        asked.push(request);
        answer(request, socket);
      }
    });
  });
  await new Promise<void>((resolve) => server?.listen(path, resolve));
  return path;
}

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "drover-qga-"));
  asked.length = 0;
});
afterEach(async () => {
  server?.close();
  await rm(directory, { recursive: true });
});

const sound = (request: Request, socket: Socket): void => {
  if (request.execute === "guest-sync-delimited") socket.write(`\xff{"return": ${request.arguments.id}}\n`, "latin1");
  else socket.write('{"return": {}}\n');
};

describe("the guest agent", () => {
  test("answers", async () => {
    expect(await pingGuestAgent(await guestAgent(sound), 1000)).toBe(true);
  });

  test("answers after what an earlier client left unread", async () => {
    const path = await guestAgent((request, socket) => {
      if (request.execute === "guest-sync-delimited") socket.write('{"return": 1}\n{"half');
      sound(request, socket);
    });
    expect(await pingGuestAgent(path, 1000)).toBe(true);
  });

  test.each<[string, (request: Request, socket: Socket) => void]>([
    ["is silent", () => undefined],
    ["answers the wrong number", (_, socket) => void socket.write('{"return": -1}\n')],
    ["hangs up", (_, socket) => void socket.destroy()],
    ["floods", (_, socket) => void socket.write("x".repeat(100_000))],
  ])("that %s counts as none", async (_, answer) => {
    expect(await pingGuestAgent(await guestAgent(answer), 100)).toBe(false);
  });

  test("that is not there counts as none", async () => {
    expect(await pingGuestAgent(join(directory, "nothing"), 100)).toBe(false);
  });

  test("is asked to shut down, and need not answer", async () => {
    const path = await guestAgent((request, socket) => {
      if (request.execute === "guest-sync-delimited") sound(request, socket);
    });
    await shutdownByGuestAgent(path, 1000);
    await expect.poll(() => asked.at(-1)).toEqual({ execute: "guest-shutdown", arguments: { mode: "powerdown" } });
  });

  test("that does not answer cannot shut down", async () => {
    await expect(shutdownByGuestAgent(await guestAgent(() => undefined), 100)).rejects.toThrow("no answer within 100 ms");
  });
});
