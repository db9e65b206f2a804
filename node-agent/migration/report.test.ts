import { beforeEach, describe, expect, it } from "vitest";
import type { Migration } from "../../crds/migration.ts";
import { FakeClock } from "../../kube/clock.ts";
import { silentLogger } from "../../kube/logger.ts";
import { MoveReporter, type MoveReporterOptions, type Said } from "./report.ts";

const M = { namespace: "default", name: "m", uid: "m1" };
const KEY = { namespace: "default", name: "m" };

const saying = (state: "Waiting" | "CopyingDisk" | "Released", progress = "0%"): Said => ({
  role: "source",
  words: { state, attempt: 1, progress },
});

let clock: FakeClock;
let written: string[];
let reporter: MoveReporter;
/** Resolves the write under way. */
let answer: () => void;
let slow: boolean;

beforeEach(() => {
  clock = new FakeClock();
  written = [];
  slow = false;
  const apply = async (_: unknown, { status }: { status: Migration["status"] }): Promise<void> => {
    written.push(`${status?.source?.state} ${status?.source?.progress}`);
    if (slow)
      await new Promise<void>((resolve) => {
        answer = resolve;
      });
  };
  reporter = new MoveReporter({ client: { apply } as unknown as MoveReporterOptions["client"], clock, log: silentLogger });
});

const settled = async (): Promise<void> => {
  for (let turn = 0; turn < 5; turn++) await Promise.resolve();
};

describe("what is said of a move", () => {
  it("is written at once when the state changes, else once a second", async () => {
    reporter.say(M, saying("Waiting"));
    await settled();
    reporter.say(M, saying("CopyingDisk"));
    await settled();
    reporter.say(M, saying("CopyingDisk", "10%"));
    reporter.say(M, saying("CopyingDisk", "20%"));
    await settled();
    expect(written).toEqual(["Waiting 0%", "CopyingDisk 0%"]);
    await clock.advance(1_000);
    await settled();
    expect(written).toEqual(["Waiting 0%", "CopyingDisk 0%", "CopyingDisk 20%"]);
  });

  it("is known until the object is gone, and not kept longer", async () => {
    reporter.say(M, saying("Released"));
    await settled();
    expect(reporter.last(M, "source")).toEqual(saying("Released"));
    reporter.release({ namespace: "default", name: "another" });
    expect(reporter.last(M, "source")).toEqual(saying("Released"));
    reporter.release(KEY);
    expect(reporter.last(M, "source")).toBeUndefined();
  });

  it("is written all the same when its object goes out of sight meanwhile, and then forgotten", async () => {
    slow = true;
    reporter.say(M, saying("CopyingDisk"));
    reporter.say(M, saying("Released"));
    reporter.release(KEY);
    expect(reporter.last(M, "source")).toEqual(saying("Released"));
    answer();
    await settled();
    expect(written).toEqual(["CopyingDisk 0%", "Released 0%"]);
    answer();
    await settled();
    expect(reporter.last(M, "source")).toBeUndefined();
  });

  it("is kept when there is more to say after all", async () => {
    slow = true;
    reporter.say(M, saying("CopyingDisk"));
    reporter.release(KEY);
    reporter.say(M, saying("Released"));
    answer();
    await settled();
    answer();
    await settled();
    expect(reporter.last(M, "source")).toEqual(saying("Released"));
  });
});
