import { spawn } from "node:child_process";
import { once } from "node:events";
import { expect, test } from "vitest";
import { holdNodeLock } from "./lock.ts";

test("is free again when its owner is killed, and not before", async () => {
  const name = `test-${process.pid}`;
  const path = JSON.stringify(`\0drover/${name}`);
  const script = `require("node:net").createServer().listen({ path: ${path} }, () => console.log("held"))`;
  const owner = spawn(process.execPath, ["-e", script], { stdio: ["ignore", "pipe", "inherit"] });
  await once(owner.stdout, "data");
  const waits: string[] = [];
  const held = holdNodeLock(name, () => waits.push("waits"), new AbortController().signal).then(() => waits.push("held"));
  await expect.poll(() => waits).toEqual(["waits"]);
  owner.kill("SIGKILL");
  await held;
  expect(waits).toEqual(["waits", "held"]);
  await expect(holdNodeLock(name, () => undefined, AbortSignal.timeout(100))).rejects.toThrow(/abort|timeout/i);
});
