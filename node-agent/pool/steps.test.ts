import { describe, expect, it } from "vitest";
import { silentLogger as log } from "../../kube/logger.ts";
import { runSteps, type PoolStep } from "./steps.ts";

const steps: PoolStep[] = [{ step: "attach" }, { step: "mount" }, { step: "autoclear" }];

describe("runSteps", () => {
  it("runs in order", async () => {
    const done: string[] = [];
    await runSteps(steps, { log, perform: async ({ step }) => void done.push(step) });
    expect(done).toEqual(["attach", "mount", "autoclear"]);
  });

  it("takes back in reverse what it did when a step fails, and throws the failure", async () => {
    const done: string[] = [];
    const run = runSteps(steps, {
      log,
      perform: async ({ step }) => {
        if (step === "autoclear") throw new Error("no");
        done.push(step);
        return async () => void done.push(`undo ${step}`);
      },
    });
    await expect(run).rejects.toThrow("no");
    expect(done).toEqual(["attach", "mount", "undo mount", "undo attach"]);
  });

  it("goes on taking back when that fails, and keeps the first failure", async () => {
    const done: string[] = [];
    const run = runSteps(steps, {
      log,
      perform: async ({ step }) => {
        if (step === "autoclear") throw new Error("first");
        return async () => {
          done.push(step);
          throw new Error("second");
        };
      },
    });
    await expect(run).rejects.toThrow("first");
    expect(done).toEqual(["mount", "attach"]);
  });

  it("returns a refusal, keeping what was done before it", async () => {
    const done: string[] = [];
    const refusal = await runSteps([{ step: "attach" }, { step: "refuse", reason: "No", message: "not so" }, { step: "mount" }], {
      log,
      perform: async ({ step }) => void done.push(step),
    });
    expect(refusal).toMatchObject({ reason: "No", message: "not so" });
    expect(done).toEqual(["attach"]);
  });

  it("does nothing more once aborted", async () => {
    const done: string[] = [];
    const abort = new AbortController();
    const run = runSteps(steps, {
      log,
      signal: abort.signal,
      perform: async ({ step }) => {
        done.push(step);
        abort.abort(new Error("stop"));
        return async () => void done.push(`undo ${step}`);
      },
    });
    await expect(run).rejects.toThrow("stop");
    expect(done).toEqual(["attach", "undo attach"]);
  });
});
