import { expect, it } from "vitest";
import { SharedTasks } from "./shared.ts";

const none = new AbortController().signal;

it("does work once for all who wait, and anew for those who come later", async () => {
  const tasks = new SharedTasks<number>();
  let runs = 0;
  const gate = Promise.withResolvers<void>();
  const work = async (): Promise<number> => {
    runs += 1;
    await gate.promise;
    return runs;
  };
  const both = Promise.all([tasks.join("a", none, work), tasks.join("a", none, work)]);
  expect(tasks.keys()).toEqual(["a"]);
  gate.resolve();
  expect(await both).toEqual([1, 1]);
  expect(tasks.keys()).toEqual([]);
  expect(await tasks.join("a", none, work)).toBe(2);
});

it("goes on while one waits, and is stopped when the last has left", async () => {
  const tasks = new SharedTasks<number>();
  const stopped: string[] = [];
  const work = (signal: AbortSignal): Promise<number> =>
    new Promise((_, reject) =>
      signal.addEventListener("abort", () => {
        stopped.push("stopped");
        reject(new Error("aborted"));
      }),
    );
  const [one, two] = [new AbortController(), new AbortController()];
  const first = tasks.join("a", one.signal, work);
  const second = tasks.join("a", two.signal, work);
  one.abort(new Error("first left"));
  await expect(first).rejects.toThrow("first left");
  expect(stopped).toEqual([]);
  two.abort(new Error("second left"));
  await expect(second).rejects.toThrow("second left");
  expect(stopped).toEqual(["stopped"]);
  expect(tasks.keys()).toEqual([]);
});

it("tells every waiter of a failure", async () => {
  const tasks = new SharedTasks<number>();
  const work = async (): Promise<number> => Promise.reject(new Error("no"));
  const both = await Promise.allSettled([tasks.join("a", none, work), tasks.join("a", none, work)]);
  expect(both.map(({ status }) => status)).toEqual(["rejected", "rejected"]);
});
