import { expect, it } from "vitest";
import { drainSettings } from "./settings.ts";

it("reads the environment", () => {
  expect(drainSettings({})).toEqual({ deadlineMs: 1_800_000, webhook: undefined });
  const env = { DROVER_DRAIN_DEADLINE: "1h30m", DROVER_WEBHOOK_DIR: "/etc/hook", DROVER_WEBHOOK_PORT: "10443" };
  expect(drainSettings(env)).toEqual({ deadlineMs: 5_400_000, webhook: { directory: "/etc/hook", port: 10_443 } });
});

it("names everything that is wrong", () => {
  const wrong = { DROVER_DRAIN_DEADLINE: "soon", DROVER_WEBHOOK_PORT: "x" };
  expect(() => drainSettings(wrong)).toThrow(/'soon' is not a time such as.*DROVER_WEBHOOK_PORT must be a port/);
});
