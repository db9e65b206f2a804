import { expect, test } from "vitest";
import type { EndpointSlice } from "../../kube/index.ts";
import { southboundRemote } from "./remotes.ts";

const slice = (over: Partial<EndpointSlice>): EndpointSlice => ({
  apiVersion: "discovery.k8s.io/v1",
  kind: "EndpointSlice",
  metadata: { name: "ovn-central-1" },
  addressType: "IPv4",
  ...over,
});

test("all ready endpoints, sorted, IPv6 in brackets", () => {
  const remote = southboundRemote([
    slice({ endpoints: [{ addresses: ["10.0.0.2"] }, { addresses: ["10.0.0.3"], conditions: { ready: false } }] }),
    slice({ addressType: "IPv6", endpoints: [{ addresses: ["fd00::1"] }], ports: [{ name: "sb", port: 16642 }] }),
    slice({ endpoints: [{ addresses: ["10.0.0.1"], conditions: { ready: true } }] }),
  ]);
  expect(remote).toBe("ssl:10.0.0.1:6642,ssl:10.0.0.2:6642,ssl:[fd00::1]:16642");
});

test("nobody known is not nobody", () => {
  expect(southboundRemote([])).toBeUndefined();
  expect(southboundRemote([slice({ endpoints: [{ addresses: ["10.0.0.3"], conditions: { ready: false } }] })])).toBeUndefined();
});
