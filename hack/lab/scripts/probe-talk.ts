/**
 * Runs inside a probe's network namespace, in a node. `fetch URL` prints the body; `echo ADDRESS` sends a numbered UDP packet
 * every 10 ms to port 7 until its standard input ends, then prints {sent, received, silenceMs, silentFrom}: the longest time in
 * which no answer came, and when that began, in ms since 1970.
 */
import { createSocket } from "node:dgram";
import { isIPv6 } from "node:net";

const INTERVAL_MS = 10;

const fetchOnce = async (url: string): Promise<void> => {
  const response = await fetch(url, { signal: AbortSignal.timeout(60_000) });
  process.stdout.write(await response.text());
};

const echo = async (address: string): Promise<void> => {
  const socket = createSocket(isIPv6(address) ? "udp6" : "udp4");
  let sent = 0;
  let received = 0;
  let silenceMs = 0;
  let silentFrom = 0;
  let last: number | undefined;
  const heard = (now: number): void => {
    if (last === undefined || now - last <= silenceMs) return;
    silenceMs = now - last;
    silentFrom = performance.timeOrigin + last;
  };
  socket.on("message", () => {
    const now = performance.now();
    if (last === undefined) process.stdout.write("answers\n");
    heard(now);
    last = now;
    received += 1;
  });
  // An unreachable guest is what this measures, not a failure of the measurement.
  socket.on("error", () => undefined);
  const timer = setInterval(() => {
    sent += 1;
    const packet = Buffer.alloc(64);
    packet.writeUInt32BE(sent);
    socket.send(packet, 7, address, () => undefined);
  }, INTERVAL_MS);
  for await (const _ of process.stdin);
  clearInterval(timer);
  heard(performance.now());
  socket.close();
  process.stdout.write(
    `${JSON.stringify({ sent, received, silenceMs: Math.round(silenceMs), silentFrom: Math.round(silentFrom) })}\n`,
  );
};

const [verb, target] = process.argv.slice(2);
if (target === undefined || (verb !== "fetch" && verb !== "echo"))
  throw new Error("usage: probe-talk.ts fetch URL | echo ADDRESS");
await (verb === "fetch" ? fetchOnce(target) : echo(target));
