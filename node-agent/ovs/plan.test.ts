import { expect, test } from "vitest";
import { crashDelayMs, planSwitch, type SwitchSeen } from "./plan.ts";

const seen = (over: Partial<SwitchSeen> = {}): SwitchSeen => ({
  database: { version: "2", file: true },
  vswitchd: { version: "2" },
  stranger: undefined,
  savedFlows: false,
  restoreWait: false,
  ...over,
});
const none = { version: undefined };

test.each<[string, SwitchSeen, string]>([
  [
    "a new node",
    seen({ database: { ...none, file: false }, vswitchd: none }),
    "create-database start-database connect settings start-vswitchd address",
  ],
  [
    "a node that was rebooted",
    seen({ database: { ...none, file: true }, vswitchd: none }),
    "convert-database start-database connect settings start-vswitchd address",
  ],
  ["both run: adopted", seen(), "connect settings address"],
  ["vswitchd died", seen({ vswitchd: none }), "connect settings start-vswitchd address"],
  ["the database died", seen({ database: { ...none, file: true } }), "convert-database start-database connect settings address"],
  [
    "another version is wanted",
    seen({ database: { version: "1", file: true }, vswitchd: { version: "1" } }),
    "connect save-flows stop-vswitchd stop-database convert-database start-database connect settings start-vswitchd address restore-flows end-restore",
  ],
  [
    "another version is wanted, and the database has died",
    seen({ database: { ...none, file: true }, vswitchd: { version: "1" } }),
    "convert-database start-database connect save-flows stop-vswitchd settings start-vswitchd address restore-flows end-restore",
  ],
  [
    "an upgrade was cut off before the database",
    seen({ database: { version: "1", file: true }, vswitchd: none, savedFlows: true, restoreWait: true }),
    "stop-database convert-database start-database connect settings start-vswitchd address restore-flows end-restore",
  ],
  [
    "an upgrade was cut off after the database",
    seen({ vswitchd: { version: "1" } }),
    "connect save-flows stop-vswitchd settings start-vswitchd address restore-flows end-restore",
  ],
  [
    "an upgrade was cut off while vswitchd was stopped",
    seen({ vswitchd: none, savedFlows: true, restoreWait: true }),
    "connect settings start-vswitchd address restore-flows end-restore",
  ],
  [
    "an upgrade was cut off before the flows were back",
    seen({ savedFlows: true, restoreWait: true }),
    "connect settings address restore-flows end-restore",
  ],
  ["an upgrade was cut off at its last step", seen({ restoreWait: true }), "connect settings address end-restore"],
])("%s", (_, now, steps) => {
  expect(planSwitch(now, "2").join(" ")).toBe(steps);
});

test.each([
  ["nothing ended", [], 0],
  ["two ends", [99_000, 99_500], 0],
  ["a third within a minute", [60_000, 99_000, 99_500], 500],
  ["a fifth", [95_000, 96_000, 97_000, 98_000, 99_000], 2_000],
  ["very many", Array.from({ length: 40 }, () => 99_000), 15_000],
  ["long ago", [1_000, 2_000, 3_000], 0],
])("after %s the next start waits", (_, deaths, ms) => {
  expect(crashDelayMs(deaths, 100_000)).toBe(ms);
});
