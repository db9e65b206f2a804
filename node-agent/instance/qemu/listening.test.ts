import { mkdtemp, rm } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, onTestFinished, test } from "vitest";
import { isListening, listeningAt } from "./listening.ts";

const TEXT = `Num       RefCount Protocol Flags    Type St Inode Path
0000000000000000: 00000002 00000000 00010000 0001 01 4711 /sockets/cpr
0000000000000000: 00000002 00000000 00000000 0001 01 4712 /sockets/cpr
0000000000000000: 00000003 00000000 00000000 0001 03 4713 /sockets/cpr
0000000000000000: 00000002 00000000 00010000 0001 01 4714 /sockets/main
0000000000000000: 00000003 00000000 00000000 0001 03 4715
`;

test("a socket that is bound only, and one that is connected, do not listen", () => {
  expect(listeningAt(TEXT, "/sockets/cpr")).toEqual(new Set(["4711"]));
  expect(listeningAt(TEXT, "/sockets/other")).toEqual(new Set());
});

test("a process listens where it does, and not where another one does", async () => {
  const directory = await mkdtemp(join(tmpdir(), "drover-listening-"));
  const path = join(directory, "socket");
  expect(await isListening(process.pid, path)).toBe(false);
  const server = createServer();
  onTestFinished(async () => {
    server.close();
    await rm(directory, { recursive: true, force: true });
  });
  await new Promise<void>((resolve) => server.listen(path, resolve));
  expect(await isListening(process.pid, path)).toBe(true);
  expect(await isListening(process.ppid, path)).toBe(false);
  expect(await isListening(2 ** 22 + 1, path)).toBe(false);
});
