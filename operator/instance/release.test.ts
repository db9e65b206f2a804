import { describe, expect, it } from "vitest";
import type { NodeSeen } from "./facts.ts";
import { instanceFixture } from "./fixtures.ts";
import { mayHavePorts, nodeRelease } from "./release.ts";

const answering: NodeSeen = { state: "Answering" };
const silent: NodeSeen = { state: "Silent", reason: "NodeNotReady", message: "node n1 is not ready" };
const fenced: NodeSeen = { state: "Fenced", reason: "NodeOutOfService", message: "node n1 was put out of service" };

describe("nodeRelease", () => {
  it.each<[string, string | undefined, string | undefined, NodeSeen, string]>([
    ["never placed", undefined, undefined, answering, "Released"],
    ["runs", "n1", "Running", answering, "Waiting Deleting"],
    ["stopped, its disks there", "n1", "Stopped", answering, "Waiting Deleting"],
    ["placed, not yet taken up", "n1", undefined, answering, "Waiting Deleting"],
    ["released", "n1", "Released", answering, "Released"],
    ["node silent", "n1", "Running", silent, "Waiting NodeNotReady"],
    ["node fenced: it may come back, and its disks with it", "n1", "Running", fenced, "Waiting NodeOutOfService"],
    ["released, node silent since", "n1", "Released", silent, "Released"],
    ["node gone for good", "n1", "Running", { state: "Gone" }, "Abandoned"],
  ])("%s", (_, nodeName, guest, node, expected) => {
    const held = nodeRelease(nodeName, guest, node);
    expect("reason" in held ? `${held.state} ${held.reason}` : held.state).toBe(expected);
  });

  it("tells a user what to do about a node that never comes back", () => {
    expect(nodeRelease("n1", "Running", silent)).toHaveProperty("message", expect.stringContaining("delete its Node object"));
  });
});

describe("mayHavePorts", () => {
  const nic = { name: "eth0", network: "blue", mac: "52:54:00:00:00:01", port: "p", mtu: 1442 };
  it.each([
    ["placed", instanceFixture({ status: { nodeName: "n1", nics: [nic] } }), true],
    ["placed, its addresses unknown", instanceFixture({ status: { nodeName: "n1" } }), true],
    ["never placed", instanceFixture({ status: { nics: [nic] } }), false],
    ["without NICs", instanceFixture({ spec: { nics: [] }, status: { nodeName: "n1" } }), false],
    ["new", instanceFixture(), false],
  ])("%s", (_, instance, expected) => {
    expect(mayHavePorts(instance)).toBe(expected);
  });
});
