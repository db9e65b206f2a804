/**
 * The agent of a node: runs the instances that the operator placed here, and tells what the node can do. When it ends, by
 * whatever, its guests run on; the next one takes them up from what is there.
 */
import { poolsOf } from "../crds/disks.ts";
import type { Instance } from "../crds/instance.ts";
import { CLAIM_LABEL } from "../crds/names.ts";
import { hosts as hostType, instances as instanceType, storagePools } from "../crds/resources.ts";
import {
  Controller,
  errorText,
  Informer,
  keyOf,
  KubeClient,
  realClock,
  registry,
  resources,
  rootLogger,
  serveHealth,
  sleep,
  untilSignal,
  type ObjectKey,
  type Pod,
} from "../kube/index.ts";
import { OvsdbClient } from "../ovsdb/index.ts";
import { byInstance, Claims, slim } from "./claim/claims.ts";
import { readConfig } from "./config.ts";
import { nodeFacts } from "./facts.ts";
import { NodeHost } from "./host/index.ts";
import { RenewedIdentity } from "./identity/identity.ts";
import { exposeCertificate } from "./identity/metrics.ts";
import { askForCertificate } from "./identity/request.ts";
import { Images } from "./image/index.ts";
import { InstanceController } from "./instance/controller.ts";
import { firstLook } from "./instance/first-look.ts";
import { LostInstances } from "./instance/lost.ts";
import { ClaimCgroups } from "./instance/qemu/cgroup.ts";
import { QemuDriver } from "./instance/qemu/driver.ts";
import { kernelBootId, readBootId } from "./instance/qemu/process.ts";
import { askRuntime, probe, type ProbeOptions } from "./instance/qemu/probe.ts";
import { Reporter } from "./instance/reporter.ts";
import { holdNodeLock } from "./lock.ts";
import { exposeAgent } from "./metrics.ts";
import { fileCheckpoint, noCheckpoint } from "./migration/checkpoint.ts";
import { Moving } from "./migration/index.ts";
import { Links, LocalSwitch, Nics } from "./nic/index.ts";
import { nodePid, paths } from "./node.ts";
import { Pools, watchPools } from "./pool/index.ts";
import { reconcilePool } from "./pools.ts";
import { removeUnusedRuntimes, Runtimes } from "./runtimes.ts";

/** Guests that are worked on at a time; most of that time is waiting, for an image or for a guest that shuts down. */
const WORKERS = 32;
/** An image may take hours, and is broken off when it is no longer wanted. */
const INSTANCE_DEADLINE_MS = 12 * 3600_000;
/** How often the node is searched for what the API does not have. */
const LOST_LOOK_MS = 30_000;
/** How often unused runtimes are looked for. */
const TIDY_MS = 3600_000;
const DRAIN_MS = 10_000;
const LAST_WORDS_MS = 5_000;

const config = readConfig(process.env);
const log = rootLogger("node-agent");
const signal = untilSignal();
let unready: string | undefined = "starting";
const health = await serveHealth({ port: config.port, ready: () => unready ?? true, live: () => true, registry });
await holdNodeLock("agent", () => log.info("another agent of this node still runs; waiting for its end"), signal);

const clock = realClock;
const client = KubeClient.fromDefault({ userAgent: "drover-agent" });
const onThisNode = { fieldSelector: `spec.nodeName=${config.nodeName}`, logger: log };
const instances = new Informer(client, instanceType, {
  fieldSelector: `status.nodeName=${config.nodeName}`,
  indexes: {
    uid: (one: Instance) => [one.metadata.uid],
    pool: (one: Instance) => poolsOf(one),
  },
  logger: log,
});
const pods = new Informer<Pod>(client, resources.pods, {
  ...onThisNode,
  labelSelector: CLAIM_LABEL,
  indexes: { instance: byInstance },
  transform: slim,
});
const poolObjects = new Informer(client, storagePools, { logger: log });
const nodes = new Informer(client, resources.nodes, { fieldSelector: `metadata.name=${config.nodeName}`, logger: log });
const node = () => nodes.get({ name: config.nodeName });

const ovs = new OvsdbClient({ remotes: [{ kind: "unix", path: `${config.ovsRunDir}/db.sock` }], database: "Open_vSwitch", log });
const local = new LocalSwitch(ovs);
const nics = new Nics({ local, links: new Links(), log });
const pools = new Pools({ nodeName: config.nodeName, log });
const images = new Images({
  pools,
  log,
  deniedRanges: config.images.denied,
  allowedRanges: config.images.allowed,
  shutdown: signal,
});
const driver = new QemuDriver({ paths, log, trace: config.qemuTrace });
const cgroupRoot = `/proc/${nodePid()}/root/sys/fs/cgroup`;
const cgroups = new ClaimCgroups({ root: cgroupRoot, parent: "" });
const reporter = new Reporter({ client, clock, log });

/** What other nodes' agents know this one by. */
const identity = new RenewedIdentity({
  ask: (stop) => askForCertificate({ client, node: config.nodeName, role: "agent", authority: config.authority, log }, stop),
  clock,
  log,
});

const factsOptions = {
  mode: config.accelerator,
  probe: (runtimeVersion: string, mode: ProbeOptions["mode"], stop: AbortSignal) =>
    probe({ paths, runtimeVersion, mode, signal: stop }),
  runtimes: paths.runtimes,
  runtimeVersion: config.runtimeVersion,
  cacheFile: `${config.runDir}/facts.json`,
  bootId: await readBootId(),
};

const runtimes = new Runtimes({
  directory: paths.runtimes,
  cacheFile: `${config.runDir}/runtimes.json`,
  ask: (runtimeVersion) => askRuntime({ paths, runtimeVersion, signal }),
  log,
});

const moving = new Moving({
  nodeName: config.nodeName,
  ...config.migration,
  client,
  instances,
  pods,
  driver,
  moves: driver.moves,
  poolMoves: driver.poolMoves,
  updates: driver.updates,
  runtimeFacts: (version) => runtimes.facts(version),
  pools,
  nics,
  identity,
  hostFacts: () => host.facts(),
  paths,
  checkpoint: config.migration.checkpoints === undefined ? noCheckpoint : fileCheckpoint(config.migration.checkpoints),
  registry,
  onHold: (key) => {
    guests.changed(key);
    controller.enqueue(key);
  },
  clock,
  log,
});

const guests = new InstanceController(
  {
    nodeName: config.nodeName,
    instances,
    driver,
    pools,
    images,
    nics,
    claims: new Claims({ client, pods, cgroups, cgroupRoot, log }),
    hostFacts: () => host.facts(),
    knownFacts: () => host.knownFacts,
    reporter,
    pool: (name) => pools.get(name),
    hold: (uid) => moving.hold(uid),
    paths,
    clock,
    log,
  },
  (key) => controller.enqueue(key),
);

const claimOwner = (pod: Pod): ObjectKey[] => {
  const name = pod.metadata.labels?.[CLAIM_LABEL];
  const { namespace } = pod.metadata;
  return name === undefined || namespace === undefined ? [] : [{ namespace, name }];
};
// Before the controller hears of it, so that what a change makes moot is broken off.
instances.onChange(({ key }) => guests.changed(key));
pods.onChange(({ old, now }) => {
  for (const pod of [old, now]) if (pod !== undefined) for (const key of claimOwner(pod)) guests.changed(key);
});

const controller = new Controller({
  name: "instances",
  workers: WORKERS,
  deadlineMs: INSTANCE_DEADLINE_MS,
  drainMs: DRAIN_MS,
  reconcile: (key, stop) => guests.reconcile(key, stop),
  logger: log,
})
  .watch(instances)
  .watch(pods, ({ old, now }) => [old, now].flatMap((pod) => (pod === undefined ? [] : claimOwner(pod))));

nics.onChange(({ instanceUid }) => {
  for (const one of instances.byIndex("uid", instanceUid)) controller.enqueue(keyOf(one));
});
// The switch is back: taps are looked after, and NICs that wait for it are made.
local.replica.onSync(() => {
  for (const one of instances.list()) guests.retry(keyOf(one));
});

const poolController = new Controller({
  name: "pools",
  workers: 2,
  drainMs: DRAIN_MS,
  reconcile: (key, stop) =>
    reconcilePool(key, { client, pools, objects: poolObjects, node, log, looked: (name) => host.poolLooked(name) }, stop),
  logger: log,
})
  .watch(poolObjects)
  .watch(nodes, ({ old, now }) =>
    JSON.stringify(old?.metadata.labels) === JSON.stringify(now?.metadata.labels) ? [] : poolObjects.list().map(keyOf),
  );

const hosts = new Informer(client, hostType, { fieldSelector: `metadata.name=${config.nodeName}`, logger: log });
const host = new NodeHost({
  client,
  nodeName: config.nodeName,
  namespace: config.namespace,
  identity: config.podName,
  bootId: await kernelBootId(),
  looked: firstLook({ instances, reporter, clock }, signal),
  clock,
  log,
  nodes,
  hosts,
  instances,
  pools,
  poolNames: () => (poolObjects.hasSynced ? poolObjects.list().map(({ metadata }) => metadata.name) : undefined),
  probe: async (stop) => {
    const found = await nodeFacts(factsOptions, stop);
    // Guests that could not be started without it need not wait for their turn.
    setImmediate(() => {
      for (const one of instances.list()) guests.retry(keyOf(one));
    });
    return found;
  },
  ovsDatapath: () => local.datapath(),
  runtimes: () => runtimes.seen,
  lostDisks: () => lostDisks,
});

// Whoever waits for a pool, or runs on one, hears of what becomes of it.
const poolWords = new Map<string, string>();
pools.onChange((name) => {
  const words = JSON.stringify(pools.get(name));
  if (poolWords.get(name) === words) return;
  poolWords.set(name, words);
  for (const one of instances.byIndex("pool", name)) guests.retry(keyOf(one));
});

const lost = new LostInstances({
  client,
  instances,
  driver,
  nics,
  moving: () => moving.belongings(),
  nodeName: config.nodeName,
  paths,
  clock,
  log,
});

/** Runtimes come with an agent that is new, and go when nothing needs them. */
async function lookAtRuntimes(): Promise<void> {
  if (await runtimes.look()) host.changed();
}

/** In words, as of the last look. */
let lostDisks: string[] | undefined;

/** Looks for what the API does not have, for as long as the agent lives. */
async function lookForLost(stop: AbortSignal): Promise<void> {
  await Promise.all([instances.synced, local.replica.whenSynced(stop)]);
  let tidyAt = clock.monotonic();
  while (!stop.aborted) {
    try {
      await lost.check(stop);
      const before = JSON.stringify(lostDisks);
      lostDisks = (await lost.disks()).map(
        ({ namespace, name, directories }) => `${namespace}/${name} in ${directories.join(", ")}`,
      );
      if (before !== JSON.stringify(lostDisks)) host.changed();
      if (clock.monotonic() >= tidyAt) {
        await tidyRuntimes();
        tidyAt = clock.monotonic() + TIDY_MS;
      }
    } catch (error) {
      if (!stop.aborted) log.warn({ error: errorText(error) }, "the node could not be searched for what nothing needs");
    }
    await sleep(clock, LOST_LOOK_MS, stop);
  }
}

async function tidyRuntimes(): Promise<void> {
  const { runtimeVersion } = await host.facts();
  const removed = await removeUnusedRuntimes(paths.runtimes, new Set([runtimeVersion, ...moving.runtimes()]), driver);
  await lookAtRuntimes();
  if (removed.length > 0) log.info({ removed }, "runtimes that nothing needs any more are deleted");
}

/** What goes on in the background fails only by a bug; the agent then ends and is started anew, its guests run on. */
const background = (name: string, work: Promise<unknown>): Promise<void> =>
  work.then(
    () => undefined,
    (error: unknown) => {
      if (signal.aborted) return;
      log.fatal({ err: error }, `${name} failed; this is a bug`);
      process.exit(1);
    },
  );

exposeAgent(registry, {
  instances: () => instances.list(),
  writes: () => reporter.writes,
  lostDisks: () => lostDisks?.length ?? 0,
});

exposeCertificate(registry, identity);

// Before any guest is touched: some of them may be on their way.
await moving.load();
ovs.start(signal);
for (const informer of [instances, pods, poolObjects, nodes, hosts]) informer.start(signal);
// Also those that the API has no more: what is left of them is taken down.
for (const name of await pools.list()) poolController.enqueue({ name });
const work = [
  background("the instances' controller", controller.start(signal)),
  background("the pools' controller", poolController.start(signal)),
  background("the Host", host.run(signal)),
  background("the node's certificate", identity.run(signal)),
  background("moves", moving.run(signal)),
  background("the search for lost instances", lookForLost(signal)),
  background(
    "the watch on pools",
    watchPools({ paths, clock, log, onChange: (name) => poolController.enqueue({ name }) }, signal),
  ),
];
await Promise.race([Promise.all([instances.synced, pods.synced, poolObjects.synced, nodes.synced]), aborted(signal)]);
if (!signal.aborted) {
  unready = undefined;
  log.info({ node: config.nodeName, instances: instances.list().length }, "the agent works");
}
await aborted(signal);
unready = "ending";
await Promise.all(work);
await Promise.all([reporter.close(LAST_WORDS_MS), moving.close(LAST_WORDS_MS)]);
guests.close();
await driver.close();
await health.close();
log.info("the agent ends; guests run on");
process.exit(0);

function aborted(stop: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (stop.aborted) resolve();
    else stop.addEventListener("abort", () => resolve(), { once: true });
  });
}
