import { expect, it } from "vitest";
import type { Migration, MigrationStatus } from "../../crds/migration.ts";
import { migrationFixture } from "../migration/fixtures.ts";
import { activeUpdates, type Made } from "./active.ts";

const one = (status?: MigrationStatus): Migration => migrationFixture(status, { mode: "InPlace" });
const pending = one({ phase: "Pending", sourceNode: "n1" });
const begun = one({ phase: "Preparing", sourceNode: "n1", targetClaim: { name: "c", uid: "c" } });
const failed = one({ phase: "Failed", sourceNode: "n1", targetClaim: { name: "c", uid: "c" } });

const active = (made: Partial<Made>) =>
  activeUpdates([{ cached: undefined, written: undefined, ...made }], () => "n2").map(({ node, begun: has }) => [node, has]);

it.each<[string, Partial<Made>, [string, boolean][]]>([
  ["that waits for its turn can be taken back", { cached: pending }, [["n1", false]]],
  ["that has just been made, too, on the node of its instance", { written: one() }, [["n2", false]]],
  ["that has its turn", { cached: begun }, [["n1", true]]],
  ["that got its turn just now", { cached: pending, written: begun }, [["n1", true]]],
  ["that has ended is none", { cached: failed }, []],
  [
    "whose end the cache does not show yet keeps its slot, and is not taken back",
    { cached: begun, written: failed },
    [["n1", true]],
  ],
  ["that the cache shows neither, also", { written: failed }, [["n1", true]]],
  ["that has ended and was written once more is none", { cached: failed, written: failed }, []],
  ["that is gone is none", {}, []],
])("one %s", (_, made, want) => expect(active(made)).toEqual(want));

it("each counts once", () => {
  const both = { cached: pending, written: undefined };
  expect(activeUpdates([both, both], () => "")).toHaveLength(1);
});
