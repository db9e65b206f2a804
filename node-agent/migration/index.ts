/** Both ends of live moves on this node, put together. */
import type { Registry } from "prom-client";
import { join } from "node:path";
import { disksOf } from "../../crds/disks.ts";
import type { Instance } from "../../crds/instance.ts";
import type { Migration } from "../../crds/migration.ts";
import { migrations } from "../../crds/resources.ts";
import {
  Controller,
  Informer,
  errorText,
  type Clock,
  type KubeClient,
  type Logger,
  type ObjectKey,
  type Pod,
} from "../../kube/index.ts";
import { UserError } from "../errors.ts";
import type { HostFacts } from "../host/index.ts";
import type { NodeIdentity } from "../identity/identity.ts";
import type { InstanceDriver } from "../instance/driver.ts";
import { nicNames } from "../instance/execute.ts";
import type { MoveDriver } from "../instance/move.ts";
import type { PoolMoveDriver } from "../instance/pool-move.ts";
import type { UpdateDriver } from "../instance/update.ts";
import type { Nics } from "../nic/index.ts";
import type { NodePaths } from "../node.ts";
import type { Pools } from "../pool/index.ts";
import { ChannelServer } from "./channel/server.ts";
import type { Checkpoint } from "./checkpoint.ts";
import { MoveController, type Hold } from "./controller.ts";
import { MoveMetrics } from "./metrics.ts";
import { MoveNotes, type MoveNote } from "./notes.ts";
import { Records } from "./records.ts";
import { MoveReporter } from "./report.ts";
import { ColdMoves } from "./cold/cold.ts";
import type { ColdDisks } from "./cold/outgoing.ts";
import { destroyColdSource, destroyColdTarget, prepareCold } from "./cold/prepare.ts";
import { ColdPoolMoves } from "./local/cold.ts";
import type { RuntimeFacts } from "./in-place/machine.ts";
import { destroySource } from "./source/destroy.ts";
import { claimTrouble, missingOf } from "./target/place.ts";
import { destroyTarget, prepareTarget } from "./target/prepare.ts";

export interface MovingParts {
  nodeName: string;
  /** This node's address, for agents and QEMUs of other nodes. */
  address: string;
  /** 0: any. */
  port: number;
  dataPorts: readonly [number, number];
  client: KubeClient;
  /** Instances of this node, with the index `uid`. */
  instances: Pick<Informer<Instance>, "get" | "byIndex" | "onChange" | "synced">;
  /** Claim pods of this node, with the index `instance`. */
  pods: Pick<Informer<Pod>, "list" | "onChange" | "synced" | "hasSynced">;
  driver: Pick<InstanceDriver, "prepare" | "observe" | "stop" | "forget" | "pingGuestAgent">;
  moves: MoveDriver;
  poolMoves: PoolMoveDriver;
  updates: UpdateDriver;
  /** What a runtime of this node can run; undefined: it is not on the node. */
  runtimeFacts: (version: string) => Promise<RuntimeFacts | undefined>;
  pools: Pick<Pools, "ensureVolume" | "removeVolume" | "place">;
  nics: Pick<Nics, "ensure" | "removeAll" | "installed" | "onChange">;
  identity: NodeIdentity;
  hostFacts: () => Promise<HostFacts>;
  paths: NodePaths;
  checkpoint: Checkpoint;
  registry: Registry;
  /** Something about an instance may be done again, or not any more. */
  onHold: (instance: ObjectKey) => void;
  clock: Clock;
  log: Logger;
}

const WORKERS = 4;
const DRAIN_MS = 10_000;
/** Most that a guest stands still for another QEMU, where its Migration does not say. */
const DEFAULT_PAUSE_MS = 1_000;
/** A port that is taken is tried again after this: the agent before this one may just be ending. */
const LISTEN_AGAIN_MS = 2_000;

export class Moving {
  readonly #parts: MovingParts;
  readonly #controller: Controller;
  readonly #moves: MoveController;
  readonly #leaving: Informer<Migration>;
  readonly #coming: Informer<Migration>;
  readonly #reporter: MoveReporter;
  readonly #server: ChannelServer;
  readonly #cold: ColdMoves;
  #port: number;

  constructor(parts: MovingParts) {
    const { client, nodeName, address, log, clock, identity } = parts;
    this.#parts = parts;
    this.#port = parts.port;
    this.#leaving = new Informer(client, migrations, { fieldSelector: `status.sourceNode=${nodeName}`, logger: log });
    this.#coming = new Informer(client, migrations, { fieldSelector: `status.targetNode=${nodeName}`, logger: log });
    this.#reporter = new MoveReporter({ client, clock, log });
    const metrics = new MoveMetrics();
    metrics.register(parts.registry);
    this.#cold = new ColdMoves({
      paths: parts.paths,
      driver: parts.driver,
      disks: (uid) => this.#disksOf(uid),
      log,
    });
    const side = {
      ...parts,
      cold: this.#cold,
      notes: new MoveNotes(parts.paths),
      records: new Records(),
      reporter: this.#reporter,
      metrics,
    };
    this.#moves = new MoveController(
      {
        ...side,
        leaving: this.#leaving,
        coming: this.#coming,
        source: {
          destroy: (note, migration, signal) =>
            note.cold === true ? destroyColdSource(side, note, migration, signal) : destroySource(side, note, migration, signal),
          livesHere: (note, migration) => this.#livesHere(note, migration),
          nicsOf: (key) => {
            const instance = parts.instances.get(key);
            return instance === undefined ? [] : nicNames(instance);
          },
        },
        target: {
          endpoint: () => `${address.includes(":") ? `[${address}]` : address}:${this.#port}`,
          prepare: (note, migration, progress, signal) =>
            note.cold === true
              ? prepareCold(side, note, migration, progress, signal)
              : prepareTarget(side, note, migration, progress, signal),
          destroy: (note, signal) => (note.cold === true ? destroyColdTarget(side, note) : destroyTarget(side, note, signal)),
          missing: (note, migration) => missingOf(note, migration, { nics: parts.nics, pods: parts.pods.list() }),
          claimTrouble: (migration) => (parts.pods.hasSynced ? claimTrouble(migration, parts.pods.list()) : undefined),
        },
        local: {
          live: parts.poolMoves,
          cold: new ColdPoolMoves({ driver: parts.driver, identity: async (uid) => (await this.#disksOf(uid)).identity }),
          hostFacts: parts.hostFacts,
          paths: parts.paths,
          isTold: (note) => this.#isTold(note),
        },
        update: { updates: parts.updates, runtimeFacts: parts.runtimeFacts, maxPauseMs: DEFAULT_PAUSE_MS },
      },
      (key) => this.#controller.enqueue(key),
    );
    this.#server = new ChannelServer({
      address,
      port: parts.port,
      identity,
      reception: (uid, attempt) => this.#moves.reception(uid, attempt),
      clock,
      log,
    });
    this.#controller = new Controller({
      name: "moves",
      workers: WORKERS,
      drainMs: DRAIN_MS,
      reconcile: (key) => this.#moves.reconcile(key),
      logger: log,
    })
      .watch(this.#leaving)
      .watch(this.#coming);
    parts.instances.onChange(({ old, now }) => {
      for (const one of [old, now]) if (one !== undefined) this.#moves.instanceChanged(one.metadata.uid);
    });
    parts.pods.onChange(() => this.#moves.claimsChanged());
    parts.nics.onChange(({ instanceUid }) => this.#moves.instanceChanged(instanceUid));
  }

  /** What others must leave alone of an instance. */
  hold(instanceUid: string): Hold | undefined {
    return this.#moves.hold(instanceUid);
  }

  belongings(): { instanceUid: string; nics: readonly string[] }[] {
    return this.#moves.belongings();
  }

  /** Versions of the runtime that guests are on their way to, or may go back to. */
  runtimes(): string[] {
    const noted = this.#moves.notes().flatMap(({ runtime }) => (runtime === undefined ? [] : [runtime]));
    const wanted = [...this.#leaving.list(), ...this.#coming.list()].flatMap(({ spec, status }) =>
      spec.mode === "InPlace" && status?.endedAt === undefined
        ? [status?.runtime?.to.version, status?.runtime?.from.version].filter((version) => version !== undefined)
        : [],
    );
    return [...noted, ...wanted];
  }

  /** Reads what earlier agents noted; to be awaited before guests are looked after. Throws when a note cannot be read. */
  async load(): Promise<void> {
    await this.#moves.load();
  }

  /** Works until the signal aborts; moves go on without us, except those whose guest is in its pause: they are finished first. */
  async run(signal: AbortSignal): Promise<void> {
    for (const informer of [this.#leaving, this.#coming]) informer.start(signal);
    const listening = this.#listen(signal);
    // Notes speak of instances: which of them are here must be known.
    const { instances, pods } = this.#parts;
    await Promise.race([Promise.all([instances.synced, pods.synced]), aborted(signal)]);
    this.#moves.takeUp();
    await this.#controller.start(signal);
    await this.#moves.close();
    await this.#cold.close();
    await listening;
    await this.#server.close();
  }

  /** Writes what was said last. */
  async close(deadlineMs: number): Promise<void> {
    await this.#reporter.close(deadlineMs);
  }

  async #listen(signal: AbortSignal): Promise<void> {
    const { log, clock } = this.#parts;
    for (let failures = 0; !signal.aborted; failures++) {
      try {
        this.#port = await this.#server.start(signal);
        return;
      } catch (error) {
        if (signal.aborted) return;
        if (failures === 0) log.error({ error: errorText(error) }, "the agents' channel cannot listen; trying again");
        await new Promise<void>((resolve) => void clock.setTimeout(resolve, LISTEN_AGAIN_MS));
      }
    }
  }

  /** The disks of an instance of this node, and whose they are. */
  async #disksOf(instanceUid: string): Promise<ColdDisks> {
    const { instances, driver, pools } = this.#parts;
    const [instance] = instances.byIndex("uid", instanceUid);
    if (instance === undefined) throw new UserError("InstanceGone", "the instance is not on this node any more");
    const { namespace = "", name } = instance.metadata;
    const identity = await driver.prepare({ instanceUid, namespace, name });
    const paths = new Map<string, string>();
    for (const disk of disksOf(instance)) {
      const { volumes } = await pools.place(disk.pool);
      paths.set(disk.name, join(volumes, instanceUid, `${disk.name}.raw`));
    }
    const pathOf = (disk: string): string => {
      const path = paths.get(disk);
      if (path === undefined) throw new UserError("DiskMissing", `the instance has no disk ${disk}`);
      return path;
    };
    return { identity, pathOf };
  }

  #livesHere(note: MoveNote, migration: Migration): boolean {
    const here = this.#parts.instances.get({ namespace: note.instance.namespace, name: note.instance.name });
    if (here === undefined || here.metadata.uid !== note.instance.uid) return false;
    const left = migration.status?.sourceClaim?.uid;
    return left === undefined || here.status?.claim?.uid === left;
  }

  #isTold({ instance: { namespace, name, uid }, goes }: MoveNote): boolean {
    const here = this.#parts.instances.get({ namespace, name });
    if (here === undefined || here.metadata.uid !== uid) return true;
    return disksOf(here).every((disk) => disk.name !== goes?.disk || disk.pool === goes.to);
  }
}

function aborted(stop: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (stop.aborted) resolve();
    else stop.addEventListener("abort", () => resolve(), { once: true });
  });
}
