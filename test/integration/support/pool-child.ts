/** Ensures a pool in a process of its own, which kills itself after the nth step: a power cut of the agent, in small. */
import { silentLogger } from "../../../kube/logger.ts";
import { nodePaths } from "../../../node-agent/node.ts";
import { Pools } from "../../../node-agent/pool/index.ts";

const { POOL_ROOT = "", POOL_NAME = "", POOL_SPEC = "", POOL_KILL_AFTER = "0", POOL_REMOVE = "" } = process.env;

let steps = 0;
const pools = new Pools({
  nodeName: "test",
  log: silentLogger,
  paths: nodePaths(POOL_ROOT),
  checkpoint: () => {
    steps += 1;
    if (steps === Number(POOL_KILL_AFTER)) process.kill(process.pid, "SIGKILL");
  },
});

if (POOL_REMOVE === "1") process.stdout.write(JSON.stringify(await pools.remove(POOL_NAME)));
else process.stdout.write(JSON.stringify(await pools.ensure({ metadata: { name: POOL_NAME }, spec: JSON.parse(POOL_SPEC) })));
