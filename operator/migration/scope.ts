/** One reconcile of one Migration: what was read, and what is remembered between reconciles. */
import type { Instance } from "../../crds/instance.ts";
import type { Migration } from "../../crds/migration.ts";
import { keyOf, type Clock, type ObjectKey, type Pod } from "../../kube/index.ts";
import type { OperatorContext } from "../context.ts";
import { claimSeen, type ClaimSeen, type NodeSeen, type Problem } from "../instance/facts.ts";
import { isSharedPool } from "../instance/shared.ts";
import { nodeSeen } from "../nodes.ts";
import { claimNameOf, comesBefore, urgencyOf } from "./attempt.ts";
import { isInPlace } from "./in-place/in-place.ts";
import type { UpdateLimits } from "./in-place/policy.ts";
import { migrationsOf } from "./lookup.ts";
import type { MoveFacts, TargetClaimSeen } from "./plan.ts";
import type { NodeFacts } from "./preflight.ts";
import type { MigrationSettings } from "./settings.ts";
import type { Turn, Turns } from "./turns.ts";

export interface MoveContext extends OperatorContext {
  moves: MigrationSettings;
  turns: Turns;
  /** What the chart says of updates in place, and whose turn it is for one: they neither leave a node nor load the network. */
  updates: UpdateLimits;
  updateTurns: Turns;
  stopwatches: Stopwatches;
  /** Reconciles it again. */
  wake: (key: ObjectKey) => void;
}

/** Since when something has been so. Forgetting it costs a longer wait, nothing else. */
export class Stopwatches {
  readonly #clock: Clock;
  readonly #since = new Map<string, Map<string, { value: string; at: number }>>();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** For how long this topic of this object has had this value, ms; undefined forgets it. */
  lasted(uid: string, topic: string, value: string | undefined): number {
    const topics = this.#since.get(uid) ?? new Map<string, { value: string; at: number }>();
    this.#since.set(uid, topics);
    const before = topics.get(topic);
    const now = this.#clock.monotonic();
    if (value === undefined) topics.delete(topic);
    else if (before?.value !== value) topics.set(topic, { value, at: now });
    else return now - before.at;
    return 0;
  }

  forget(uid: string): void {
    this.#since.delete(uid);
  }
}

export class MoveScope {
  readonly ctx: MoveContext;
  /** As it was read, or as our last write returned it. */
  migration: Migration;
  /** What the API server said to the last claim, or size of one, that it did not take. */
  refused: Problem | undefined;

  constructor(migration: Migration, ctx: MoveContext) {
    this.migration = migration;
    this.ctx = ctx;
  }

  get key(): ObjectKey {
    return keyOf(this.migration);
  }

  get instanceKey(): ObjectKey {
    return { namespace: this.migration.metadata.namespace, name: this.migration.spec.instance };
  }

  get instance(): Instance | undefined {
    return this.ctx.recentInstances.get(this.instanceKey);
  }

  /** All claim pods of the instance, and one that was just made. */
  get #pods(): Pod[] {
    const { claims, recentClaims } = this.ctx;
    const uid = this.migration.status?.instanceUid ?? this.instance?.metadata.uid;
    const cached = uid === undefined ? [] : claims.byIndex("owner", uid);
    const pods = new Map(cached.map((pod) => [pod.metadata.name, recentClaims.get(keyOf(pod)) ?? pod]));
    const { namespace } = this.migration.metadata;
    for (const name of [claimNameOf(this.migration), this.instance?.status?.claim?.name]) {
      const written = name === undefined ? undefined : recentClaims.written({ namespace, name });
      if (written !== undefined) pods.set(written.metadata.name, written);
    }
    return [...pods.values()];
  }

  nodeOf(name: string | undefined): NodeSeen {
    return name === undefined ? { state: "Answering" } : nodeSeen(this.ctx, name);
  }

  #nodeFacts(name: string): NodeFacts {
    const { nodes, hosts } = this.ctx;
    return { name, node: nodes.get({ name }), seen: this.nodeOf(name), host: hosts.get({ name }) };
  }

  /** The nodes that say they have a pool of this name. */
  readonly nodesWith = (pool: string): string[] =>
    this.ctx.hosts
      .list()
      .filter(({ status }) => status?.pools?.some(({ name }) => name === pool))
      .map(({ metadata }) => metadata.name);

  get turns(): Turns {
    return isInPlace(this.migration) ? this.ctx.updateTurns : this.ctx.turns;
  }

  #askTurn(source: string, target: string | undefined): Turn {
    const { migration, ctx, key } = this;
    const { uid } = migration.metadata;
    return this.turns.ask({ uid, source, target, urgency: urgencyOf(migration) }, () => ctx.wake(key));
  }

  /** What the next step is planned from. */
  facts(): MoveFacts {
    const { migration, instance, ctx } = this;
    const { status, metadata } = migration;
    const seen = this.#pods.map(claimSeen);
    const ours = seen.filter((claim) => claim.migration === metadata.name);
    const name = claimNameOf(migration);
    const claim = seen.find((one) => one.name === name);
    const sourceNode = status?.handover === undefined ? instance?.status?.nodeName : status.sourceNode;
    return {
      migration,
      instance,
      first: comesBefore(migration, migrationsOf(this.instanceKey, ctx)),
      source: this.nodeOf(sourceNode),
      target: this.nodeOf(status?.targetNode ?? claim?.node),
      claim: claim === undefined ? undefined : targetSeen(claim),
      oldClaims: ours.filter((one) => one.name !== name),
      otherClaims: seen.filter((one) => one.migration === undefined && one.name !== name),
      sourceClaim: seen.find(({ uid }) => uid === status?.sourceClaim?.uid),
      refused: this.refused,
      nodeFacts: (node) => this.#nodeFacts(node),
      hasPool: (pool) => ctx.pools.get({ name: pool }) !== undefined,
      nodesWith: this.nodesWith,
      isShared: (pool) => isSharedPool(pool, ctx.pools),
      askTurn: (target) => this.#askTurn(sourceNode ?? "", target),
      lasted: (topic, value) => ctx.stopwatches.lasted(metadata.uid, topic, value),
      settings: ctx.moves,
      updates: ctx.updates,
      now: ctx.clock.now(),
    };
  }
}

const targetSeen = (claim: ClaimSeen): TargetClaimSeen => ({ ...claim, labelled: claim.migration !== undefined });
