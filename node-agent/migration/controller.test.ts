import { expect, test } from "vitest";
import { silentLogger, type ObjectKey } from "../../kube/index.ts";
import { MoveController, type MovesParts } from "./controller.ts";
import type { MoveNote } from "./notes.ts";

const KEY: ObjectKey = { namespace: "ns", name: "move" };
const NOTE: MoveNote = {
  migration: { namespace: "ns", name: "move", uid: "m" },
  instance: { namespace: "ns", name: "vm", uid: "i" },
  attempt: 1,
  role: "source",
  mark: "none",
  since: 0,
  nics: [],
};

/** A controller that has nothing in its caches and cannot ask the API server; gives the Migrations whose words it let go of. */
const reconciled = async (notes: MoveNote[]): Promise<{ released: ObjectKey[]; again: unknown }> => {
  const released: ObjectKey[] = [];
  const nowhere = { get: () => undefined, list: () => [] };
  const parts = {
    leaving: nowhere,
    coming: nowhere,
    nodeName: "n1",
    log: silentLogger,
    client: { get: () => Promise.reject(new Error("no API server")) },
    notes: { list: () => notes },
    reporter: { release: (key: ObjectKey) => void released.push(key) },
  };
  const controller = new MoveController(parts as unknown as MovesParts, () => undefined);
  return { again: await controller.reconcile(KEY), released };
};

test("a Migration that is gone, and of which nothing is noted, is forgotten with all that was said of it", async () => {
  expect(await reconciled([])).toEqual({ released: [KEY], again: undefined });
});

test("one that is noted here still is not, nor because of a note of another", async () => {
  expect(await reconciled([NOTE])).toEqual({ released: [], again: { afterMs: 5_000 } });
  const other = { ...NOTE, migration: { ...NOTE.migration, name: "other" } };
  expect((await reconciled([other])).released).toEqual([KEY]);
});
