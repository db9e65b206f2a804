import { mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { nodePaths } from "../node.ts";
import { MoveNotes, type MoveNote } from "./notes.ts";
import { OwnNote } from "./own-note.ts";

const note: MoveNote = {
  migration: { namespace: "team-a", name: "web-1", uid: "m" },
  instance: { namespace: "team-a", name: "web", uid: "i" },
  attempt: 1,
  role: "target",
  mark: "none",
  since: 0,
  nics: [],
};

it("keeps both of two changes that begin at the same moment, and goes on after one that failed", async () => {
  const written: MoveNote[] = [];
  const gates: { resolve: () => void; reject: (error: Error) => void }[] = [];
  const write = async (next: MoveNote): Promise<void> => {
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    gates.push({ resolve, reject });
    await promise;
    written.push(next);
  };
  const own = new OwnNote({ write, stage: () => Promise.reject(new Error("not asked for")) }, note);
  const ran = own.change((before) => ({ ...before, mark: "Ran", postCopy: true }));
  const whole = own.change((before) => ({ ...before, whole: true }));
  const third = own.change((before) => ({ ...before, mark: "none" }));
  const writing = (count: number) => vi.waitFor(() => expect(gates).toHaveLength(count));
  await writing(1);
  expect(own.now).toBe(note);
  gates[0]?.resolve();
  await ran;
  expect(own.now.mark).toBe("Ran");
  await writing(2);
  gates[1]?.resolve();
  await whole;
  await writing(3);
  gates[2]?.reject(new Error("no room"));
  await expect(third).rejects.toThrow("no room");
  expect(own.now).toEqual({ ...note, mark: "Ran", postCopy: true, whole: true });
  expect(written.at(-1)).toEqual(own.now);
});

describe("a change that is made ready first", () => {
  let root: string;
  let notes: MoveNotes;
  const uid = "11111111-2222-3333-4444-555555555555";
  const first: MoveNote = { ...note, instance: { ...note.instance, uid } };
  beforeEach(async () => {
    root = await mkdtemp(join(tmpdir(), "drover-notes-"));
    notes = new MoveNotes(nodePaths(root));
    await notes.write(first);
  });
  afterEach(() => rm(root, { recursive: true, force: true }));
  /** As the next agent finds it. */
  const found = async (): Promise<MoveNote | undefined> => {
    const next = new MoveNotes(nodePaths(root));
    await next.load();
    return next.get(uid);
  };

  it("counts once it is made, for the next agent as well, and leaves nothing when the note goes", async () => {
    const own = new OwnNote(notes, first);
    const put = await own.stage((before) => ({ ...before, mark: "Switched" }));
    expect([own.now.mark, (await found())?.mark]).toEqual(["none", "none"]);
    await put();
    expect([own.now.mark, notes.get(uid)?.mark, (await found())?.mark]).toEqual(["Switched", "Switched", "Switched"]);
    await own.stage((before) => ({ ...before, mark: "GivingUp" }));
    await notes.remove(first);
    expect(await readdir(join(root, "moves"))).toEqual([]);
  });

  it("is refused when another one came in between", async () => {
    const own = new OwnNote(notes, first);
    const put = await own.stage((before) => ({ ...before, mark: "Switched" }));
    await own.change((before) => ({ ...before, mark: "GivingUp" }));
    await expect(put()).rejects.toThrow("has changed");
    expect([own.now.mark, (await found())?.mark]).toEqual(["GivingUp", "GivingUp"]);
  });
});
