/**
 * The switch's launcher: the pod of a DaemonSet that starts ovsdb-server and ovs-vswitchd on its node, outside every pod, and
 * keeps them as they should be. When it ends, the switch runs on.
 */
import { EventEmitter, once } from "node:events";
import {
  backoffMs,
  Informer,
  KubeClient,
  realClock,
  registry,
  resources,
  rootLogger,
  serveHealth,
  sleep,
  untilSignal,
} from "../../kube/index.ts";
import { OvsdbClient } from "../../ovsdb/index.ts";
import { errorText, UserError } from "../errors.ts";
import { exposeCertificate } from "../identity/metrics.ts";
import { holdNodeLock } from "../lock.ts";
import { Links } from "../nic/links.ts";
import { LocalSwitch } from "../nic/switch.ts";
import { ChassisCertificate } from "./chassis.ts";
import { readConfig } from "./config.ts";
import { Launcher } from "./launcher.ts";
import { crashDelayMs } from "./plan.ts";
import { southboundRemote } from "./remotes.ts";
import { touchesSettings } from "./settings.ts";

/** All is looked at anew after so long, for what tells of no event: an address that somebody took away, a daemon that hangs. */
const ROUND_MS = 30_000;

const log = rootLogger("ovs-launcher");
const signal = untilSignal();
const config = readConfig(process.env);
const changed = new EventEmitter();
const deaths: number[] = [];
let trouble: string | undefined = "the switch was not looked at yet";
let chassis: ChassisCertificate | undefined;

const health = await serveHealth({
  port: config.port,
  ready: () => trouble ?? chassis?.trouble ?? true,
  live: () => true,
  registry,
});

await holdNodeLock("ovs", () => log.info("another launcher of this node still runs; waiting for its end"), signal);

const client = KubeClient.fromDefault({ userAgent: "drover-ovs" });
const slices = new Informer(client, resources.endpointSlices, {
  namespace: config.ovn.namespace,
  labelSelector: `kubernetes.io/service-name=${config.ovn.service}`,
  logger: log,
});
if (config.ovn.remote === undefined) {
  slices.onChange(() => changed.emit("change"));
  slices.start(signal);
}

let renewing: Promise<void> | undefined;
if (config.chassis !== undefined) {
  chassis = await ChassisCertificate.open({ ...config.chassis, client, nodeName: config.nodeName, log });
  exposeCertificate(registry, chassis.identity);
  renewing = chassis.identity.run(signal);
}

const database = new OvsdbClient({
  remotes: [{ kind: "unix", path: `${config.runDir}/db.sock` }],
  database: "Open_vSwitch",
  log,
});
const local = new LocalSwitch(database);
database.start(signal);
// Somebody else's change of our settings is set right at once.
local.replica.onChange((changes) => {
  if (touchesSettings(changes)) changed.emit("change");
});

const launcher = new Launcher({
  config,
  links: new Links(),
  local,
  log,
  ovnRemote: () => southboundRemote(slices.list()),
  onEnd: (daemon) => {
    deaths.push(realClock.monotonic());
    log.warn({ daemon }, "a daemon of the switch ended; it is started again");
    changed.emit("change");
  },
});

let failures = 0;
while (!signal.aborted) {
  const next = new AbortController();
  const wake = AbortSignal.any([signal, next.signal]);
  const change = once(changed, "change", { signal: wake }).catch(() => undefined);
  try {
    await sleep(realClock, crashDelayMs(deaths, realClock.monotonic()), signal);
    await launcher.ensure(signal);
    await chassis?.ensureFile();
    if (trouble !== undefined) log.info("the switch is as it should be");
    trouble = undefined;
    failures = 0;
    await Promise.race([change, sleep(realClock, ROUND_MS, wake)]);
  } catch (error) {
    failures += 1;
    trouble = errorText(error);
    if (!signal.aborted)
      log.error(
        error instanceof UserError ? { reason: error.reason, trouble } : { err: error },
        "the switch is not as it should be",
      );
    await sleep(realClock, backoffMs(failures, { baseMs: 100, capMs: 30_000 }), wake);
  } finally {
    next.abort();
  }
}

launcher.close();
await renewing;
await health.close();
log.info("the launcher ends; the switch runs on");
process.exit(0);
