import { Duplex } from "node:stream";
import { describe, expect, test } from "vitest";
import { FakeClock } from "../../../../kube/clock.ts";
import { QmpClosed, QmpError, QmpTimeout } from "./errors.ts";
import { QmpSession, type QmpEvent } from "./session.ts";

const GREETING = '{"QMP":{"version":{},"capabilities":["oob"]}}\n';

/** The other end of a monitor's socket: what was asked, and a way to answer. */
class Peer extends Duplex {
  readonly asked: { execute?: string; "exec-oob"?: string; arguments: unknown; id: number }[] = [];
  answer: (request: (typeof this.asked)[number]) => void = (request) => this.say({ return: {}, id: request.id });

  override _read(): void {}

  override _write(chunk: Buffer, _encoding: string, done: () => void): void {
    const request = JSON.parse(chunk.toString()) as (typeof this.asked)[number];
    this.asked.push(request);
    this.answer(request);
    done();
  }

  say(message: object): void {
    this.push(`${JSON.stringify(message)}\n`);
  }
}

async function session(clock = new FakeClock()): Promise<{ peer: Peer; qmp: QmpSession; clock: FakeClock }> {
  const peer = new Peer();
  peer.push(GREETING);
  return { peer, qmp: await QmpSession.over(peer, { clock, deadlineMs: 1000 }), clock };
}

const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

describe("QmpSession", () => {
  test("takes the capability that is offered, and numbers its requests", async () => {
    const { peer, qmp } = await session();
    await qmp.execute("stop");
    expect(peer.asked).toEqual([
      { execute: "qmp_capabilities", arguments: { enable: ["oob"] }, id: 1 },
      { execute: "stop", arguments: {}, id: 2 },
    ]);
  });

  test("asks for nothing that is not offered, and refuses to go out of band then", async () => {
    const peer = new Peer();
    peer.push('{"QMP":{"version":{},"capabilities":[]}}\n');
    const qmp = await QmpSession.over(peer, { clock: new FakeClock() });
    expect(peer.asked).toEqual([{ execute: "qmp_capabilities", arguments: {}, id: 1 }]);
    await expect(qmp.execute("yank", {}, { outOfBand: true })).rejects.toThrow("yank: this QEMU takes nothing out of band");
  });

  test("goes out of band by exec-oob", async () => {
    const { peer, qmp } = await session();
    await qmp.execute("yank", { instances: [] }, { outOfBand: true });
    expect(peer.asked.at(-1)).toEqual({ "exec-oob": "yank", arguments: { instances: [] }, id: 2 });
  });

  test("gives each command its own reply, whatever their order", async () => {
    const { peer, qmp } = await session();
    peer.answer = () => undefined;
    const first = qmp.execute("query-status");
    const second = qmp.execute("query-version");
    peer.say({ return: "second", id: 3 });
    peer.say({ return: "first", id: 2 });
    expect(await Promise.all([first, second])).toEqual(["first", "second"]);
  });

  test("an error has QEMU's words and what was asked", async () => {
    const { peer, qmp } = await session();
    peer.answer = ({ id }) => peer.say({ error: { class: "DeviceNotFound", desc: "Device 'x' not found" }, id });
    const error = await qmp.execute("device_del", { id: "x" }).catch((e: unknown) => e);
    expect(error).toBeInstanceOf(QmpError);
    expect(error).toMatchObject({ message: "device_del: Device 'x' not found", errorClass: "DeviceNotFound" });
  });

  test("a missing reply is a timeout; the late one harms nobody", async () => {
    const { peer, qmp, clock } = await session();
    peer.answer = () => undefined;
    const late = qmp.execute("query-block").catch((e: unknown) => e);
    await clock.advance(1000);
    expect(await late).toBeInstanceOf(QmpTimeout);
    peer.say({ return: "late", id: 2 });
    peer.say({ error: { class: "GenericError", desc: "no id at all" } });
    peer.answer = ({ id }) => peer.say({ return: "in time", id });
    expect(await qmp.execute("query-status")).toBe("in time");
    expect(clock.pending).toBe(0);
  });

  test("events go to all who listen, and to nobody who stopped", async () => {
    const { peer, qmp } = await session();
    const seen: QmpEvent[] = [];
    const stop = qmp.onEvent((event) => seen.push(event));
    peer.say({ event: "SHUTDOWN", timestamp: { seconds: 5, microseconds: 250_000 }, data: { guest: true } });
    await turn();
    stop();
    peer.say({ event: "STOP", timestamp: { seconds: 6, microseconds: 0 } });
    await turn();
    expect(seen).toEqual([{ name: "SHUTDOWN", data: { guest: true }, at: 5250 }]);
  });

  test("the end fails what waits and what comes after", async () => {
    const { peer, qmp, clock } = await session();
    peer.answer = () => undefined;
    const waiting = qmp.execute("query-status").catch((e: unknown) => e);
    peer.push(null);
    expect(await waiting).toBeInstanceOf(QmpClosed);
    expect((await qmp.closed).message).toBe("QEMU closed the connection");
    await expect(qmp.execute("quit")).rejects.toThrow("quit: QEMU closed the connection");
    expect([qmp.isClosed, peer.destroyed, clock.pending]).toEqual([true, true, 0]);
  });

  test("what is not QMP ends the session", async () => {
    const { peer, qmp } = await session();
    peer.push("HTTP/1.1 200 OK\n");
    expect((await qmp.closed).message).toBe("QEMU's monitor sent what is not QMP");
  });

  test("a monitor that never greets is given up, and let go", async () => {
    const clock = new FakeClock();
    const peer = new Peer();
    const attempt = QmpSession.over(peer, { clock, deadlineMs: 1000 }).catch((e: unknown) => e);
    await clock.advance(1000);
    expect(await attempt).toBeInstanceOf(QmpTimeout);
    expect(peer.destroyed).toBe(true);
  });

  test("nobody listens: said with the path's error", async () => {
    await expect(QmpSession.connect("/nonexistent/qmp")).rejects.toThrow("ENOENT");
  });
});
