import { describe, expect, test } from "vitest";
import type { Link } from "./links.ts";
import { externalIds, orphans, planNic, type NicWant } from "./plan.ts";
import type { SwitchPort } from "./switch.ts";

const want: NicWant = {
  tap: "d0123456789abcd",
  user: 64001,
  mtu: 1442,
  mac: "52:54:00:00:00:01",
  port: "default.web.eth0.12345678",
  instanceUid: "uid-1",
  nic: "eth0",
};
const link = (over: Partial<Link> = {}): Link => ({
  name: want.tap,
  ifindex: 7,
  mtu: 1442,
  mac: "fe:54:00:00:00:01",
  up: true,
  carrier: false,
  kind: "tun",
  parent: undefined,
  tap: { multiQueue: false, user: "64001" },
  ...over,
});
const port = (over: Partial<SwitchPort["interfaces"][number]> = {}, bridge = "br-int"): SwitchPort => ({
  uuid: "p",
  name: want.tap,
  bridge,
  interfaces: [
    {
      uuid: "i",
      name: want.tap,
      type: "",
      externalIds: new Map(Object.entries(externalIds(want))),
      ifindex: 7,
      error: undefined,
      ...over,
    },
  ],
});

describe("planNic", () => {
  test.each<[string, Link | undefined, SwitchPort | undefined, string]>([
    ["nothing there", undefined, undefined, "add-tap set-tap add-port"],
    ["all there", link(), port(), ""],
    ["all there, held by QEMU", link({ carrier: true }), port(), ""],
    ["a reboot took the tap, the port is still written", undefined, port(), "remove-port add-tap set-tap add-port"],
    ["made again under the same name: dead", link({ ifindex: 9 }), port(), "remove-port add-port"],
    ["not opened by the switch yet", link(), port({ ifindex: undefined }), ""],
    ["the port is missing", link(), undefined, "add-port"],
    ["down", link({ up: false }), port(), "set-tap"],
    ["another MTU", link({ mtu: 1500 }), port(), "set-tap"],
    ["another port of OVN", link(), port({ externalIds: new Map([["iface-id", "old"]]) }), "set-port"],
    ["on another bridge", link(), port({}, "br-phys"), "remove-port add-port"],
    [
      "of several queues",
      link({ tap: { multiQueue: true, user: "64001" } }),
      port(),
      "remove-port remove-tap add-tap set-tap add-port",
    ],
    ["of another user", link({ tap: { multiQueue: false, user: "1" } }), undefined, "remove-tap add-tap set-tap add-port"],
    ["of another user, but held open", link({ carrier: true, tap: { multiQueue: false, user: "1" } }), port(), ""],
    ["no tap at all, under our name", link({ kind: "veth", tap: undefined }), undefined, "remove-tap add-tap set-tap add-port"],
  ])("%s", (_, seenLink, seenPort, steps) => {
    expect(planNic({ link: seenLink, port: seenPort }, want).join(" ")).toBe(steps);
  });
});

describe("orphans", () => {
  const nobody = { taps: new Set<string>(), instances: new Set<string>() };
  const ours = { taps: new Set([want.tap]), instances: new Set(["uid-1"]) };

  test.each<[string, Link[], SwitchPort[], typeof nobody, { ports: string[]; taps: string[] }]>([
    ["known ones stay", [link()], [port()], ours, { ports: [], taps: [] }],
    ["unknown ones go", [link()], [port()], nobody, { ports: [want.tap], taps: [want.tap] }],
    ["one that is held open stays", [link({ carrier: true })], [port()], nobody, { ports: [], taps: [] }],
    ["a port that is not marked as ours stays", [], [port({ externalIds: new Map() })], nobody, { ports: [], taps: [] }],
    [
      "other interfaces stay",
      [link({ name: "eth0" }), link({ kind: "veth", tap: undefined })],
      [],
      nobody,
      { ports: [], taps: [] },
    ],
  ])("%s", (_, links, ports, known, found) => {
    expect(orphans({ links, ports }, known)).toEqual(found);
  });
});
