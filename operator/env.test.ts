import { describe, expect, it } from "vitest";
import { operatorEnv } from "./env.ts";
import { migrationSettings } from "./migration/settings.ts";
import { runtimeUpdateSettings } from "./rollout/settings.ts";

const good = { POD_NAME: "drover-operator-0", POD_NAMESPACE: "drover-system", DROVER_HOLDER_IMAGE: "drover/holder:1" };

describe("operatorEnv", () => {
  it("needs three variables and has defaults for the rest", () => {
    expect(operatorEnv(good)).toEqual({
      identity: "drover-operator-0",
      namespace: "drover-system",
      httpPort: 8080,
      claims: {
        holderImage: "drover/holder:1",
        holderPullPolicy: "IfNotPresent",
        cpuOvercommit: 4,
        priorityClassName: "drover-claim",
      },
      migration: migrationSettings("{}"),
      updates: runtimeUpdateSettings("{}"),
      certificates: undefined,
    });
  });

  it("signs certificates of nodes where it is told of an authority", () => {
    const env = operatorEnv({ ...good, DROVER_CERTIFICATES_DIR: "/etc/authority", DROVER_CERTIFICATES_DAYS: "2" });
    expect(env.certificates).toEqual({ directory: "/etc/authority", validMs: 172_800_000, namespace: "drover-system" });
  });

  it("names everything that is wrong, and what it should be", () => {
    const wrong = {
      POD_NAME: "a",
      DROVER_HOLDER_IMAGE: "",
      DROVER_CPU_OVERCOMMIT: "much",
      DROVER_HOLDER_PULL_POLICY: "Sometimes",
    };
    expect(() => operatorEnv(wrong)).toThrow(
      "the operator's environment is wrong: POD_NAMESPACE must be set; DROVER_CPU_OVERCOMMIT must be a number such as 4; " +
        "DROVER_HOLDER_IMAGE must not be empty; DROVER_HOLDER_PULL_POLICY must be Always, IfNotPresent or Never",
    );
  });

  it.each([
    ["DROVER_CPU_OVERCOMMIT", "0", "must be at least 0.1"],
    ["DROVER_HTTP_PORT", "70000", "must be at most 65535"],
  ])("refuses %s=%s", (name, value, words) => {
    expect(() => operatorEnv({ ...good, [name]: value })).toThrow(`${name} ${words}`);
  });
});
