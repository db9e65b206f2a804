import { describe, expect, test } from "vitest";
import { judgeExit, lastWords, type Remains } from "./exit.ts";

const run = {
  claimUid: "c",
  machineType: "pc-q35-10.0",
  cpuModel: "Westmere-v1",
  accelerator: "TCG" as const,
  runtimeVersion: "1",
  pid: 42,
  pidStart: "1",
  bootId: "b1",
  startedAt: "2026-01-01T00:00:00.000Z",
  oomKillsBefore: 1,
};
const remains: Remains = { run, bootId: "b1", oomKills: 1, stderr: "" };
const crash = "2026-11-23T20:29:00.123456Z qemu-system-x86_64: assertion failed\n";

describe("judgeExit", () => {
  test.each<[string, Partial<Remains>, string, string]>([
    ["nothing tells", {}, "Unknown", "QEMU is gone, and nothing is left that tells why"],
    ["another boot of the node", { bootId: "b2", oomKills: undefined }, "NodeRestarted", "the node was restarted while it ran"],
    ["a kill more than before", { oomKills: 2 }, "MemoryLimit", "at the memory limit of its claim"],
    ["killed by the limit while stopping", { oomKills: 2, run: { ...run, stopAskedAt: "x" } }, "MemoryLimit", "memory limit"],
    [
      "asked to stop",
      { run: { ...run, stopAskedAt: "x" }, end: { code: null, signal: "SIGKILL" } },
      "Stopped",
      "stopped as asked",
    ],
    [
      "a crash while it stops",
      { run: { ...run, stopAskedAt: "x" }, end: { code: null, signal: "SIGSEGV" }, stderr: crash },
      "Stopped",
      "asked to stop, QEMU crashed (SIGSEGV): assertion failed",
    ],
    ["SIGTERM from outside", { stderr: "qemu-system-x86_64: terminating on signal 15 from pid 1\n" }, "Killed", "by signal 15"],
    ["SIGKILL from outside", { end: { code: null, signal: "SIGKILL" } }, "Killed", "someone on the node killed QEMU"],
    ["a crash", { end: { code: null, signal: "SIGSEGV" }, stderr: crash }, "Crashed", "QEMU crashed (SIGSEGV): assertion failed"],
    ["an error", { end: { code: 1, signal: null }, stderr: crash }, "Crashed", "QEMU ended with exit code 1: assertion failed"],
    ["the pod was taken away", { oomKills: undefined }, "ClaimGone", "its claim's cgroup is gone"],
    ["an end that nobody saw, with words", { stderr: crash }, "Crashed", "QEMU ended: assertion failed"],
  ])("%s", (_, change, reason, message) => {
    const verdict = judgeExit({ ...remains, ...change });
    expect(verdict.reason).toBe(reason);
    expect(verdict.message).toContain(message);
  });
});

test("lastWords keeps the last lines, without time stamps and program names", () => {
  const lines = Array.from({ length: 9 }, (_, n) => `2026-11-23T20:29:00.1Z /usr/bin/qemu-system-x86_64: line ${n}`);
  expect(lastWords(lines.join("\n"))).toBe("line 4; line 5; line 6; line 7; line 8");
});

test("QEMU's trace is none of its words", () => {
  const stderr = "24058@1795475167.558634:vm_state_notify running 1 reason 9 (running)\nqemu-system-x86_64: Could not open 'x'\n";
  expect(lastWords(stderr)).toBe("Could not open 'x'");
});
