/** An agent of which only the moves are real; its QEMUs, disks and taps are files. Ends by SIGTERM in good order, by SIGKILL at once. */
import { mkdirSync, readFileSync, rmSync, writeFileSync, existsSync } from "node:fs";
import { join } from "node:path";
import type { Instance } from "../../../crds/instance.ts";
import { tapName } from "../../../crds/names.ts";
import { instances as instanceType } from "../../../crds/resources.ts";
import { Informer, KubeClient, realClock, registry, resources, rootLogger, untilSignal, type Pod } from "../../../kube/index.ts";
import type { IdentityMaterial } from "../../../node-agent/identity/certificate.ts";
import { fileCheckpoint } from "../../../node-agent/migration/checkpoint.ts";
import { Moving } from "../../../node-agent/migration/index.ts";
import { nodePaths } from "../../../node-agent/node.ts";
import { FakeMachine } from "./fake-machine.ts";
import { fixedIdentity } from "./node-certificates.ts";

const [directory = "", node = "", port = "0"] = process.argv.slice(2);
const signal = untilSignal();
const log = rootLogger(`agent-${node}`);
const client = KubeClient.fromDefault();
const machine = new FakeMachine(directory, node);
const place = (what: string): string => {
  const path = join(directory, `${what}-${node}`);
  mkdirSync(path, { recursive: true });
  return path;
};
const instances = new Informer<Instance>(client, instanceType, {
  fieldSelector: `status.nodeName=${node}`,
  indexes: { uid: (one) => [one.metadata.uid] },
});
const pods = new Informer<Pod>(client, resources.pods, { fieldSelector: `spec.nodeName=${node}` });
const noPoolMoves = (): Promise<void> => Promise.reject(new Error("no disk changes its pool here"));
const noUpdates = (): Promise<void> => Promise.reject(new Error("no guest gets another QEMU here"));
const moving = new Moving({
  nodeName: node,
  address: "127.0.0.1",
  port: Number(port),
  dataPorts: [49_152, 49_407],
  client,
  instances,
  pods,
  driver: machine,
  moves: machine,
  poolMoves: {
    state: () => Promise.resolve("old"),
    copy: noPoolMoves,
    complete: noPoolMoves,
    pivot: noPoolMoves,
    settle: noPoolMoves,
    giveUp: noPoolMoves,
    forget: () => undefined,
    counters: () => Promise.resolve({ doneBytes: 0, totalBytes: 0 }),
  },
  updates: {
    state: () => Promise.resolve("old"),
    prepare: noUpdates,
    switchOver: noUpdates,
    run: noUpdates,
    finish: noUpdates,
    giveUp: noUpdates,
    isSwitching: () => false,
    marks: () => [],
    onUpdate: () => () => undefined,
  },
  runtimeFacts: () => Promise.resolve(undefined),
  pools: {
    ensureVolume: ({ instanceUid, disk, sizeBytes }) => {
      if (existsSync(join(directory, `full-${node}`))) return Promise.reject(new Error("the pool is full"));
      writeFileSync(join(place("volumes"), `${instanceUid}.${disk}`), "");
      return Promise.resolve({ path: join(place("volumes"), `${instanceUid}.${disk}`), sizeBytes });
    },
    removeVolume: ({ instanceUid, disk }) =>
      Promise.resolve(rmSync(join(place("volumes"), `${instanceUid}.${disk}`), { force: true })),
    place: () => Promise.reject(new Error("no shared pools here")),
  },
  nics: {
    ensure: ({ instanceUid, nic }) => {
      writeFileSync(join(place("taps"), `${instanceUid}.${nic.name}`), "");
      return Promise.resolve({ tap: tapName(instanceUid, nic.name) });
    },
    removeAll: (instanceUid, names) => {
      for (const name of names) rmSync(join(place("taps"), `${instanceUid}.${name}`), { force: true });
      return Promise.resolve();
    },
    installed: () => true,
    onChange: () => () => undefined,
  },
  identity: fixedIdentity(JSON.parse(readFileSync(join(directory, `identity-${node}.json`), "utf8")) as IdentityMaterial),
  hostFacts: () =>
    Promise.resolve({
      accelerator: "TCG",
      qemuVersion: "10.0",
      runtimeVersion: "r",
      machineTypes: ["pc-q35-10.0"],
      cpuModel: "qemu64",
    }),
  paths: nodePaths(place("root")),
  checkpoint: fileCheckpoint(place("checkpoints")),
  registry,
  onHold: () => undefined,
  clock: realClock,
  log,
});

await moving.load();
instances.start(signal);
pods.start(signal);
await moving.run(signal);
await moving.close(2_000);
process.exit(0);
