import { mkdir, mkdtemp, rm } from "node:fs/promises";
import { createServer, type Server, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { nodePaths } from "../../node.ts";
import { GuestAgents } from "./guest-agent.ts";

type Request = { execute: string; arguments: { id?: number; mode?: string } };
type Answer = (request: Request, socket: Socket) => void;

const UID = "b4c1d4a2-5a51-4f8e-9a4e-1c9f0f0a1b2c";

let root: string;
let agents: GuestAgents;
let server: Server | undefined;
let asked: Request[];
/** Connections of ours, in their order. */
let connections: Socket[];

/** A guest agent that answers each request with what `answer` gives. */
async function guestAgent(answer: Answer): Promise<void> {
  server = createServer((socket) => {
    connections.push(socket);
    socket.on("error", () => undefined);
    socket.on("data", (chunk: Buffer) => {
      for (const line of chunk.toString("latin1").replaceAll("\xff", "").split("\n").filter(Boolean)) {
        const request = JSON.parse(line) as Request;
        asked.push(request);
        answer(request, socket);
      }
    });
  });
  await new Promise<void>((resolve) => server?.listen(join(nodePaths(root).instanceVm(UID), "qga"), resolve));
}

beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), "drover-qga-"));
  await mkdir(nodePaths(root).instanceVm(UID), { recursive: true });
  agents = new GuestAgents({ paths: nodePaths(root) });
  asked = [];
  connections = [];
});
afterEach(async () => {
  agents.close();
  for (const socket of connections) socket.destroy();
  server?.close();
  await rm(root, { recursive: true });
});

const sync = ({ arguments: { id } }: Request): string => `\xff{"return": ${id}}\n`;

const sound: Answer = (request, socket) => {
  if (request.execute === "guest-sync-delimited") socket.write(sync(request), "latin1");
  else socket.write('{"return": {}}\n');
};

/** Answers nothing until it is told to; then all that was asked, in its order. */
const slow = (): { answer: Answer; wake: () => void } => {
  const held: [Request, Socket][] = [];
  let awake = false;
  return {
    answer: (request, socket) => {
      if (awake) sound(request, socket);
      else held.push([request, socket]);
    },
    wake: () => {
      awake = true;
      // as QEMU's port: to whoever is connected by then
      for (const [request] of held.splice(0)) sound(request, connections.at(-1) ?? expect.unreachable());
    },
  };
};

const commands = (): string[] => asked.map(({ execute }) => execute);
const hungUp = (): boolean[] => connections.map(({ destroyed, readableEnded }) => destroyed || readableEnded);

describe("the guest agent", () => {
  test("answers, and is left alone then", async () => {
    await guestAgent(sound);
    expect(await agents.ping(UID, 1000)).toBe(true);
    await expect.poll(hungUp).toEqual([true]);
    expect(await agents.ping(UID, 1000)).toBe(true);
    expect(connections).toHaveLength(2);
  });

  test("answers after what an earlier client left unread", async () => {
    await guestAgent((request, socket) => {
      if (request.execute === "guest-sync-delimited") socket.write('{"return": 1}\n{"half');
      sound(request, socket);
    });
    expect(await agents.ping(UID, 1000)).toBe(true);
  });

  test.each<[string, Answer]>([
    ["is silent", () => undefined],
    ["answers the wrong number", (_, socket) => void socket.write('{"return": -1}\n')],
    ["hangs up", (_, socket) => void socket.destroy()],
    ["floods", (_, socket) => void socket.write("x".repeat(100_000))],
  ])("that %s counts as none", async (_, answer) => {
    await guestAgent(answer);
    expect(await agents.ping(UID, 100)).toBe(false);
  });

  test("that is not there counts as none", async () => {
    expect(await agents.ping(UID, 100)).toBe(false);
  });

  test("is asked to shut down, and need not answer", async () => {
    await guestAgent((request, socket) => {
      if (request.execute === "guest-sync-delimited") sound(request, socket);
    });
    await agents.shutdown(UID, 1000);
    await expect.poll(() => asked.at(-1)).toEqual({ execute: "guest-shutdown", arguments: { mode: "powerdown" } });
  });

  test("that does not answer cannot shut down", async () => {
    await guestAgent(() => undefined);
    await expect(agents.shutdown(UID, 100)).rejects.toThrow("no answer within 100 ms");
  });
});

describe("a guest agent that answers late", () => {
  test("finds us there still, and is not asked any more", async () => {
    const { answer, wake } = slow();
    await guestAgent(answer);
    expect(await agents.ping(UID, 20)).toBe(false);
    expect(hungUp()).toEqual([false]);
    wake();
    await expect.poll(hungUp).toEqual([true]);
    expect(commands()).toEqual(["guest-sync-delimited"]);
  });

  test("is not told to shut down later than it was meant", async () => {
    const { answer, wake } = slow();
    await guestAgent(answer);
    await expect(agents.shutdown(UID, 20)).rejects.toThrow("no answer within 20 ms");
    wake();
    await expect.poll(hungUp).toEqual([true]);
    expect(commands()).not.toContain("guest-shutdown");
  });

  test("is asked anew by the same connection", async () => {
    const { answer, wake } = slow();
    await guestAgent(answer);
    expect(await agents.ping(UID, 20)).toBe(false);
    const again = agents.ping(UID, 5000);
    await expect.poll(commands).toHaveLength(2);
    wake();
    expect(await again).toBe(true);
    expect(connections).toHaveLength(1);
    await expect.poll(hungUp).toEqual([true]);
  });

  test("may refuse to shut down: that is heard to the end", async () => {
    await guestAgent((request, socket) => {
      if (request.execute === "guest-sync-delimited") sound(request, socket);
      else setTimeout(() => socket.write('{"error": {"class": "GenericError", "desc": "no"}}\n'), 30);
    });
    await agents.shutdown(UID, 1000);
    expect(hungUp()).toEqual([false]);
    await expect.poll(hungUp).toEqual([true]);
  });

  test("that talks and talks is hung up on", async () => {
    await guestAgent((_, socket) => void socket.write('{"event": "noise"}\n'.repeat(100_000)));
    expect(await agents.ping(UID, 20)).toBe(false);
    await expect.poll(hungUp).toEqual([true]);
  });

  test("is another QEMU's once that runs the guest", async () => {
    await guestAgent(() => undefined);
    expect(await agents.ping(UID, 20)).toBe(false);
    agents.moved(UID);
    await expect.poll(hungUp).toEqual([true]);
    expect(await agents.ping(UID, 20)).toBe(false);
    expect(connections).toHaveLength(2);
  });
});
