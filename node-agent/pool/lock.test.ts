import { expect, it } from "vitest";
import { KeyedLock } from "./lock.ts";

it("runs one at a time per key, in order, also after a failure; other keys do not wait", async () => {
  const lock = new KeyedLock();
  const said: string[] = [];
  const gate = Promise.withResolvers<void>();
  const first = lock.run("a", async () => {
    await gate.promise;
    said.push("a1");
    throw new Error("no");
  });
  const second = lock.run("a", async () => void said.push("a2"));
  await lock.run("b", async () => void said.push("b"));
  gate.resolve();
  await expect(first).rejects.toThrow("no");
  await second;
  expect(said).toEqual(["b", "a1", "a2"]);
});
