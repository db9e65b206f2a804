import { expect, test } from "vitest";
import type { HandoverState, Migration } from "../../crds/migration.ts";
import { FakeClock, silentLogger, type ObjectKey } from "../../kube/index.ts";
import { MoveController, type MovesParts } from "./controller.ts";
import type { MoveNote } from "./notes.ts";
import { Records } from "./records.ts";
import type { Said } from "./report.ts";

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
    records: new Records(),
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

/** What a node does with a Migration that its cache shows in this state, when no side of it is under way; `role`: this node's part in it. */
const looked = async (
  role: "sourceNode" | "targetNode",
  cached: HandoverState,
  known: HandoverState | undefined,
): Promise<string[]> => {
  const done: string[] = [];
  const attempt = 1;
  const status = { instanceUid: "i", sourceNode: "n2", targetNode: "n3", [role]: "n1", handover: { attempt, state: cached } };
  const migration = { metadata: { ...KEY, uid: "m" }, spec: { instance: "vm", mode: "Live" }, status } as unknown as Migration;
  const records = new Records();
  if (known !== undefined) records.put({ ...KEY, uid: "m" }, { attempt, state: known });
  const stopped = new Error("not begun any further");
  const parts = {
    leaving: { get: () => migration, list: () => [] },
    coming: { get: () => undefined, list: () => [] },
    source: { nicsOf: () => [] },
    nodeName: "n1",
    log: silentLogger,
    clock: new FakeClock(),
    notes: {
      list: () => [],
      get: () => undefined,
      write: ({ role: as }: MoveNote) => (done.push(`begin ${as}`), Promise.reject(stopped)),
    },
    reporter: {
      last: () => undefined,
      say: (_: unknown, { role: as, words }: Said) => void done.push(`say ${as} ${words.state}`),
    },
    records,
  };
  await new MoveController(parts as unknown as MovesParts, () => undefined).reconcile(KEY);
  return done;
};

test.each<["sourceNode" | "targetNode", string, string[]]>([
  ["sourceNode", "source", ["say source Released"]],
  ["targetNode", "target", ["say target Running"]],
])("as its %s: a side that is over is not taken up again because the cache is behind", async (role, side, said) => {
  expect(await looked(role, "Handover", undefined)).toEqual([`begin ${side}`]);
  expect(await looked(role, "Handover", "Done")).toEqual(said);
});
