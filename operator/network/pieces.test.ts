/** Settings, endpoints, status: the small pure ones. */
import { describe, expect, it } from "vitest";
import type { EndpointSlice } from "../../kube/index.ts";
import { remotesOf } from "./endpoints.ts";
import { networkFixture } from "./fixtures.ts";
import { networkFacts } from "./network-facts.ts";
import { networkSettings } from "./settings.ts";
import { holdBackMs, inUse, networkStatus, PROGRAMMED } from "./status.ts";
import { Waiting } from "./waiting.ts";

describe("settings", () => {
  it("find the chart's OVN by its Service, over TLS, checked by name", () => {
    expect(
      networkSettings({
        DROVER_OVN_NAMESPACE: "drover",
        DROVER_OVN_SERVICE: "ovn-central",
        DROVER_OVN_TLS_DIR: "/etc/drover/ovn",
      }),
    ).toEqual({
      mtu: 1442,
      scope: "drover",
      northbound: {
        remotes: [],
        service: { namespace: "drover", name: "ovn-central" },
        tlsDirectory: "/etc/drover/ovn",
        serverName: "ovn-central",
      },
    });
  });
  it("take an existing OVN as it is told", () => {
    const env = {
      DROVER_OVN_NB: "ssl:10.0.0.5:6641, ssl:10.0.0.6:6641",
      DROVER_NETWORK_MTU: "8942",
      DROVER_OVN_SCOPE: "east",
      POD_NAMESPACE: "x",
    };
    expect(networkSettings(env)).toEqual({
      mtu: 8942,
      scope: "east",
      northbound: {
        remotes: [
          { kind: "ssl", host: "10.0.0.5", port: 6641 },
          { kind: "ssl", host: "10.0.0.6", port: 6641 },
        ],
      },
    });
  });
  it.each([
    [{}, /DROVER_OVN_NB nor DROVER_OVN_NAMESPACE/],
    [{ POD_NAMESPACE: "x", DROVER_NETWORK_MTU: "70" }, /DROVER_NETWORK_MTU is "70"; give a whole number from 1280/],
    [{ POD_NAMESPACE: "x", DROVER_OVN_SCOPE: "a b" }, /DROVER_OVN_SCOPE/],
    [{ DROVER_OVN_NB: "10.0.0.5" }, /not an OVSDB remote/],
  ])("refuse %j with the variable's name", (env, words) => expect(() => networkSettings(env)).toThrow(words));
});

describe("endpoints", () => {
  const slice = (endpoints: EndpointSlice["endpoints"], more: Partial<EndpointSlice> = {}): EndpointSlice => ({
    apiVersion: "discovery.k8s.io/v1",
    kind: "EndpointSlice",
    metadata: { name: "s" },
    addressType: "IPv4",
    ports: [
      { name: "sb", port: 6642 },
      { name: "nb", port: 16641 },
    ],
    ...(endpoints ? { endpoints } : {}),
    ...more,
  });
  it("are those of the port named nb, ready ones first, each once", () => {
    const slices = [
      slice([{ addresses: ["10.0.0.1"], conditions: { ready: false } }, { addresses: ["10.0.0.2"] }]),
      slice([{ addresses: ["10.0.0.2"], conditions: { ready: true } }]),
      slice([{ addresses: ["fd00::1"] }], { addressType: "IPv6", ports: [] }),
    ];
    expect(remotesOf(slices, true)).toEqual([
      { kind: "ssl", host: "10.0.0.2", port: 16641 },
      { kind: "ssl", host: "fd00::1", port: 6641 },
      { kind: "ssl", host: "10.0.0.1", port: 16641 },
    ]);
    expect(remotesOf([slice(undefined)], false)).toEqual([]);
  });
});

describe("status", () => {
  const network = networkFixture({ ipv4: { cidr: "10.10.0.0/24", dhcp: true }, ipv6: { cidr: "fd42:10::/64", dhcp: true } });
  const facts = networkFacts(network);
  const make = (now: number, instances = 2, status = network.status) =>
    networkStatus({
      network: { ...network, ...(status ? { status } : {}) },
      facts,
      verdict: PROGRAMMED,
      instances,
      mtu: 1442,
      now: new Date(now),
    });
  it("tells gateways, domain, MTU and count", () => {
    expect(make(0)).toMatchObject({
      observedGeneration: 1,
      instances: 2,
      ipv4Gateway: "10.10.0.1",
      ipv6Gateway: "fd42:10::1",
      domain: "blue.team-a.internal",
      mtu: 1442,
    });
  });
  it("is the same a moment later", () => expect(make(60_000, 2, make(0))).toEqual(make(0)));
  it("holds back a mere count, but nothing that somebody waits for", () => {
    const have = make(0);
    expect(holdBackMs(have, make(1, 3, have), 200)).toBe(800);
    expect(holdBackMs(have, make(1, 3, have), 5000)).toBe(0);
    expect(holdBackMs(undefined, have, 1)).toBe(0);
    expect(holdBackMs({ ...have, observedGeneration: 0 }, have, 1)).toBe(0);
  });
  it("names who uses a network that is to be deleted", () => {
    expect(inUse([])).toBeUndefined();
    expect(inUse(["web"])?.message).toBe("it is deleted once no instance uses it: web; delete it");
    expect(inUse(["g", "f", "e", "d", "c", "b", "a"])?.message).toBe(
      "it is deleted once no instance uses it: a, b, c, d, e and 2 more; delete them",
    );
  });
});

describe("waiting", () => {
  it("knows who waits for what, longest first", () => {
    const waiting = new Waiting();
    waiting.set("a", ["x", "y"]);
    waiting.set("b", ["x"]);
    expect(waiting.on("x")).toEqual(["a", "b"]);
    expect(waiting.on("x", 1)).toEqual(["a"]);
    waiting.set("a", ["y"]);
    expect(waiting.on("x")).toEqual(["b"]);
    waiting.clear("a");
    waiting.clear("a");
    expect(waiting.on("y")).toEqual([]);
  });
});
