import { beforeEach, expect, test } from "vitest";
import { FakeClock } from "../../../kube/clock.ts";
import type { MoveNote } from "../notes.ts";
import { Underway } from "../underway.ts";
import { Stopping } from "./stopping.ts";

let said: string[];
let clock: FakeClock;
let postCopy: boolean;
/** How often QEMU does not answer yet. */
let silences: number;
let stopping: Stopping;

beforeEach(() => {
  said = [];
  clock = new FakeClock();
  postCopy = false;
  silences = 0;
  let note = { instance: { uid: "u" } } as MoveNote;
  const told = async (what: string): Promise<void> => {
    said.push(what);
    if (silences-- > 0) throw new Error("no answer");
  };
  stopping = new Stopping({
    moves: { allowPause: (_: string, ms: number) => told(`allow ${ms}`), postCopy: () => told("post-copy") } as never,
    checkpoint: (_: string, step: string) => void said.push(step),
    underway: new Underway({ clock, ended: () => stopping.go(), failed: () => undefined }),
    note: () => note,
    writeNote: async (change) => {
      note = change(note);
      said.push(`note ${note.postCopy}`);
    },
    maxPauseMs: () => 300,
    wantsPostCopy: () => postCopy,
    allowed: () => void said.push("allowed"),
  });
});

const ALLOWED = ["allow-pause", "allowed", "allow 300"];
const BY_POST_COPY = ["note true", "post-copy"];

/** Looks as often as the source may. */
const look = async (): Promise<string[]> => {
  for (let times = 0; times < 3; times++) {
    stopping.go();
    await clock.advance(1);
  }
  return said.splice(0);
};

test("QEMU is told once", async () => {
  expect(await look()).toEqual(ALLOWED);
  expect(await look()).toEqual([]);
});

test("one that did not answer is told again, after a rest", async () => {
  silences = 1;
  expect(await look()).toEqual(ALLOWED);
  await clock.advance(400);
  expect(said).toEqual(ALLOWED);
});

test("by post-copy from the start: the note comes first", async () => {
  postCopy = true;
  expect(await look()).toEqual(["allow-pause", "allowed", ...BY_POST_COPY, "allow 300"]);
});

test("by post-copy later, told until QEMU answers, and then no more", async () => {
  await look();
  [postCopy, silences] = [true, 1];
  expect(await look()).toEqual(BY_POST_COPY);
  await clock.advance(400);
  expect(said.splice(0)).toEqual(BY_POST_COPY);
  expect(await look()).toEqual([]);
});

test("a guest that runs on here is told anew the next time", async () => {
  await look();
  stopping.forget();
  expect(await look()).toEqual(ALLOWED);
});
