import { expect, it } from "vitest";
import { unfitBecause } from "./leader.ts";
import type { Row } from "./values.ts";

const row = (model: string, connected: boolean, leader: boolean): Row[] => [
  { name: "_Server", model: "standalone", connected: true, leader: true },
  { name: "OVN_Northbound", model, connected, leader },
];

it.each([
  ["an old server without _Server", undefined, true, /^fit$/],
  ["standalone", row("standalone", true, true), true, /^fit$/],
  ["the leader", row("clustered", true, true), true, /^fit$/],
  ["a follower where any will do", row("clustered", true, false), false, /^fit$/],
  ["a follower where the leader is asked for", row("clustered", true, false), true, /not the leader/],
  ["a member cut off", row("clustered", false, false), false, /cut off/],
  ["a relay with its source", row("relay", true, false), true, /^fit$/],
  ["a relay without", row("relay", false, false), true, /without a connection/],
  ["a server of something else", [], true, /no database OVN_Northbound/],
])("%s", (_, rows, leaderOnly, why) => {
  expect(unfitBecause(rows, "OVN_Northbound", leaderOnly) ?? "fit").toMatch(why);
});
