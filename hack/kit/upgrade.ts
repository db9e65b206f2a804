/** Upgrades of the running Drover, as its users do them. */
import path from "node:path";
import { lab } from "../lab/index.ts";
import { run } from "../lab/run.ts";

const SYSTEM = "drover-system";
const CHART = path.resolve(import.meta.dirname, "../../manifests/chart");

/** Changes values of the chart and waits until all pods are those that they ask for. */
export const upgradeDrover = async (values: Readonly<Record<string, string | number>>): Promise<void> => {
  const up = lab();
  const set = Object.entries(values).flatMap(([name, value]) => ["--set", `${name}=${value}`]);
  await run(up.helm, ["upgrade", "drover", CHART, "-n", SYSTEM, "--reuse-values", ...set, "--wait", "--timeout=240s"], {
    env: { KUBECONFIG: up.kubeconfig },
    deadlineMs: 260_000,
  });
};
