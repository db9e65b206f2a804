import { beforeEach, describe, expect, it } from "vitest";
import type { Migration } from "../../crds/migration.ts";
import { MIGRATION_FINALIZER } from "../../crds/names.ts";
import { FakeClock, silentLogger } from "../../kube/index.ts";
import { migrationFixture, movedInstance, movingStatus, nodeFixture } from "./fixtures.ts";
import { QUIET_MS } from "./quiet.ts";
import { reconcileMigration } from "./reconcile.ts";
import { Stopwatches, type MoveContext } from "./scope.ts";
import { migrationSettings } from "./settings.ts";

const KEY = { namespace: "team-a", name: "web-1" };

let said: string[];
let clock: FakeClock;
let migration: Migration;
let ctx: MoveContext;

const ready = (name: string) => ({ ...nodeFixture(name), status: { conditions: [{ type: "Ready", status: "True" }] } });

/** As much of caches and client as the reconcile of a move under way asks. */
const world = (): MoveContext => {
  const parts = {
    recentMigrations: { get: () => migration, put: (now: Migration) => void (migration = now) },
    recentInstances: { get: () => movedInstance() },
    recentClaims: { get: () => undefined, written: () => undefined },
    claims: { byIndex: () => [] },
    migrations: { byIndex: () => [migration] },
    nodes: { get: ({ name }: { name: string }) => ready(name), hasSynced: true },
    heartbeats: { silence: () => undefined, isBack: () => true },
    clock,
    stopwatches: new Stopwatches(clock),
    log: silentLogger,
    events: { event: (_: object, __: string, reason: string) => void said.push(`event ${reason}`) },
    client: {
      apply: async (_: object, { status }: Migration) => {
        said.push(`status ${status?.phase} ${status?.reason}`);
        return { ...migration, status: { ...migration.status, ...status } };
      },
    },
    moves: migrationSettings("{}"),
  };
  return parts as unknown as MoveContext;
};

beforeEach(() => {
  said = [];
  clock = new FakeClock();
  const copying = movingStatus("Handover", { phase: "CopyingMemory", reason: "CopyingMemory" });
  migration = migrationFixture(copying, {}, { finalizers: [MIGRATION_FINALIZER] });
  ctx = world();
});

describe("a move whose guest may stop any moment", () => {
  it("has nothing written of it, then all at once", async () => {
    expect(await reconcileMigration(KEY, ctx)).toEqual({ afterMs: QUIET_MS });
    await clock.advance(QUIET_MS - 1);
    expect(await reconcileMigration(KEY, ctx)).toEqual({ afterMs: 1 });
    expect(said).toEqual([]);
    await clock.advance(1);
    await reconcileMigration(KEY, ctx);
    expect(said).toEqual(["status SwitchingOver SwitchingOver", "event SwitchingOver"]);
  });

  it("is told of at once where somebody wants it back", async () => {
    await reconcileMigration(KEY, ctx);
    migration = { ...migration, spec: { ...migration.spec, cancel: true } };
    await reconcileMigration(KEY, ctx);
    expect(said[0]).toBe("status SwitchingOver TooLate");
  });
});
