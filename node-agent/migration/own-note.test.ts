import { expect, it, vi } from "vitest";
import type { MoveNote } from "./notes.ts";
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
