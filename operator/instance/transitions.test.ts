import { describe, expect, it } from "vitest";
import type { OwnStatus } from "./status.ts";
import { transitionEvent } from "./transitions.ts";

const status = (phase: OwnStatus["phase"], reason = "", message = "because"): OwnStatus => ({
  phase,
  reason,
  nodeName: "n1",
  ip: "10.10.0.2",
  conditions: [{ type: "Ready", status: "False", reason: "R", message, lastTransitionTime: "" }],
});

describe("transitionEvent", () => {
  it.each<[string, OwnStatus, OwnStatus, string | undefined]>([
    ["applied", {}, status("Pending", "Scheduling"), undefined],
    ["no room", {}, status("Pending", "Unschedulable"), "Warning Unschedulable: because"],
    ["its pool is not published yet", {}, status("Pending", "WaitingForPool"), "Normal WaitingForPool: because"],
    ["still no room", status("Pending", "Unschedulable"), status("Pending", "Unschedulable", "2 nodes"), undefined],
    ["placed", status("Pending", "Scheduling"), status("Starting", "WaitingForAgent"), undefined],
    ["placed at once", {}, status("Starting", "WaitingForAgent"), undefined],
    ["runs", status("Starting"), status("Running"), "Normal Running: it runs on node n1, as 10.10.0.2"],
    ["becomes Ready", status("Running", "HolderStarting"), status("Running", "Running"), undefined],
    ["fails", status("Running"), status("Error", "MemoryLimit"), "Warning MemoryLimit: because"],
    ["fails otherwise", status("Error", "MemoryLimit"), status("Error", "Crashed"), "Warning Crashed: because"],
    ["is started again", status("Error", "Crashed"), status("Starting"), "Normal Starting: it is started on node n1: because"],
    ["node lost", status("Running"), status("Unknown", "NodeNotReady"), "Warning NodeNotReady: because"],
    ["node back before its agent", status("Unknown", "NodeNotReady"), status("Unknown", "AgentNotBack"), undefined],
    ["node restarted in a moment", status("Running"), status("Unknown", "AgentNotBack"), "Warning AgentNotBack: because"],
    ["node back", status("Unknown", "NodeNotReady"), status("Running"), "Normal Running: it runs on node n1, as 10.10.0.2"],
    ["stopping", status("Running"), status("Stopping", "ShuttingDown"), "Normal ShuttingDown: because"],
    ["claim ends", status("Stopping", "ShuttingDown"), status("Stopping", "ClaimEnding"), "Normal ClaimEnding: because"],
    ["claim lost", status("Running"), status("Stopping", "ClaimLost"), "Warning ClaimLost: because"],
    ["stopped", status("Stopping"), status("Stopped", "PoweredOff"), "Normal Stopped: because"],
    ["applied stopped", {}, status("Stopped", "PoweredOff"), undefined],
  ])("%s", (_, before, after, expected) => {
    const event = transitionEvent(before, after);
    expect(event && `${event.type} ${event.reason}: ${event.note}`).toBe(expected);
  });
});
