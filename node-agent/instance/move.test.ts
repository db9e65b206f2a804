import { describe, expect, test } from "vitest";
import { canMove } from "./move.ts";

describe("which guests can move while they run", () => {
  test.each([
    ["TCG", "10.0.13", [], undefined],
    ["TCG", "9.0.0", [], undefined],
    ["TCG", "8.2.4", [], "QemuTooOld"],
    ["TCG", undefined, [], "QemuTooOld"],
    ["KVM", "7.2.9", [], undefined],
    ["KVM", undefined, [], undefined],
    ["KVM", "10.0.13", ["0000:00:02.0/vfio: VFIO migration is not supported"], "DeviceCannotMove"],
    ["TCG", "8.0.0", ["some device"], "QemuTooOld"],
  ] as const)("%s, QEMU %s, blockers %j: %s", (accelerator, qemuVersion, blockers, reason) => {
    expect(canMove({ accelerator, qemuVersion, blockers })?.reason).toBe(reason);
  });

  test("a device that cannot move is named", () => {
    const facts = { accelerator: "KVM", qemuVersion: "10.0.13", blockers: ["gpu0 cannot", "gpu1 cannot"] } as const;
    expect(canMove(facts)?.message).toBe("QEMU cannot move this guest: gpu0 cannot; gpu1 cannot");
  });
});
