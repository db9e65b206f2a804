import { expect, test } from "vitest";
import type { Handover } from "../../crds/migration.ts";
import { Records } from "./records.ts";

const REF = { namespace: "ns", name: "move", uid: "m" };
const at = (state: Handover["state"], attempt = 1): Handover => ({ attempt, state });

test("a reading that comes late takes nothing back", () => {
  const records = new Records();
  expect(records.put(REF, at("Done"))).toEqual(at("Done"));
  expect(records.put(REF, at("Handover"))).toEqual(at("Done"));
  expect(records.put(REF, undefined)).toEqual(at("Done"));
  expect(records.get(REF)).toEqual(at("Done"));
});

test("the next attempt is another story", () => {
  const records = new Records();
  records.put(REF, at("Source"));
  expect(records.put(REF, at("Copying", 2))).toEqual(at("Copying", 2));
  expect(records.put(REF, at("Source"))).toEqual(at("Copying", 2));
});

test("so is another Migration of the same name, and one that is gone", () => {
  const records = new Records();
  records.put(REF, at("Done"));
  const other = { ...REF, uid: "other" };
  expect(records.get(other)).toBeUndefined();
  expect(records.put(other, at("Copying"))).toEqual(at("Copying"));
  expect(records.get(REF)).toBeUndefined();
  records.forget({ namespace: "ns", name: "move" });
  expect(records.get(other)).toBeUndefined();
});
