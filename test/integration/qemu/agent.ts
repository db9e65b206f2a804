/** An agent in a process of its own, to be killed: starts the plan given as JSON, says its pid, and stays. */
import { silentLogger } from "../../../kube/logger.ts";
import type { MachinePlan } from "../../../node-agent/instance/driver.ts";
import { QemuDriver } from "../../../node-agent/instance/qemu/driver.ts";
import { nodePaths } from "../../../node-agent/node.ts";
import { join } from "node:path";

interface Task {
  root: string;
  runtimes: string;
  cgroups: { root: string; parent: string };
  plan: MachinePlan;
}

const { root, runtimes, cgroups, plan } = JSON.parse(process.env["AGENT_TASK"] ?? "") as Task;
const paths = { ...nodePaths(root), runtime: (version: string) => join(runtimes, version) };
const driver = new QemuDriver({ paths, log: silentLogger, cgroups });
const { pid } = await driver.start(plan, AbortSignal.timeout(60_000));
process.stdout.write(`${pid}\n`);
setInterval(() => undefined, 60_000);
