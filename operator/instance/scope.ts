/** One reconcile of one instance: what was read, and what its phases found. Lives as long as the reconcile. */
import { claimName } from "../../crds/names.ts";
import type { GuestStatus, Instance, NicStatus } from "../../crds/instance.ts";
import type { Migration } from "../../crds/migration.ts";
import { keyOf, type ObjectKey, type Pod } from "../../kube/index.ts";
import { drainOf } from "../drain/controller.ts";
import type { DrainPlan } from "../drain/plan.ts";
import type { DrainSettings } from "../drain/settings.ts";
import type { OperatorContext } from "../context.ts";
import { nodeSeen } from "../nodes.ts";
import { activeMove, nodeOfDisks, pastMigrations, type ActiveMove } from "../migration/active.ts";
import { currentRuntime } from "../migration/in-place/runtimes.ts";
import { migrationsOf } from "../migration/lookup.ts";
import { arrivedClaim, planClaim, type ClaimPlan } from "./claim-plan.ts";
import { claimSeen, type ClaimSeen, type NodeSeen } from "./facts.ts";
import type { Problems, StatusFacts } from "./phase.ts";
import type { Pace } from "./pace.ts";

/** What an instance's reconcile asks of the network. */
export interface NetworkSide {
  addresses: {
    assign(instance: Instance): { nics: NicStatus[] } | { problem: { reason: string; message: string } };
    release(uid: string): void;
  };
  ports: {
    ensurePorts(
      instance: Instance,
      opts?: { chassis?: readonly string[]; nics?: NicStatus[] },
    ): Promise<{ ready: true } | { problem: { reason: string; message: string } }>;
    removePorts(instance: { metadata: { uid: string; namespace?: string; name: string } }): Promise<void>;
  };
}

export interface InstanceContext extends OperatorContext {
  network: NetworkSide;
  pace: Pace;
  drain: DrainSettings;
}

export class InstanceScope {
  readonly ctx: InstanceContext;
  /** As it was read, or as our last write returned it. */
  instance: Instance;
  readonly problems: Problems = {};
  nics: NicStatus[];
  #retryMs: number | undefined;

  constructor(instance: Instance, ctx: InstanceContext) {
    this.ctx = ctx;
    this.instance = instance;
    this.nics = instance.status?.nics ?? [];
  }

  get key(): ObjectKey {
    return keyOf(this.instance);
  }

  get guest(): GuestStatus | undefined {
    return this.instance.status?.guest;
  }

  /** The Migrations that name this instance, ended ones too. */
  get migrations(): Migration[] {
    return migrationsOf(this.key, this.ctx);
  }

  /** The Migration that has its turn. */
  get move(): ActiveMove | undefined {
    return activeMove(this.migrations, this.instance.metadata.uid);
  }

  /** All claim pods of the instance: those in the cache, and one that was just made. */
  get pods(): Pod[] {
    const { uid, namespace, name } = this.instance.metadata;
    const { claims, recentClaims } = this.ctx;
    const pods = new Map(claims.byIndex("owner", uid).map((pod) => [pod.metadata.name, pod]));
    const serial = this.instance.status?.claim?.serial ?? 1;
    const names = [claimName(name, uid, serial), claimName(name, uid, serial + 1), this.move?.targetClaim.name];
    for (const one of names) {
      if (one === undefined) continue;
      const key = { namespace, name: one };
      const written = recentClaims.written(key);
      if (written !== undefined) pods.set(key.name, written);
    }
    return [...pods.values()];
  }

  /** Whether something that was written is not yet in the cache. */
  get wroteUnseen(): boolean {
    const cached = new Set(this.ctx.claims.byIndex("owner", this.instance.metadata.uid));
    return this.ctx.recentInstances.written(this.key) !== undefined || this.pods.some((pod) => !cached.has(pod));
  }

  get claims(): ClaimSeen[] {
    return this.pods.map(claimSeen);
  }

  /** What is to be done about the claim, as things stand now. */
  get plan(): ClaimPlan {
    const { instance, guest, claims: seen, ctx } = this;
    const recorded = instance.status?.claim;
    const move = this.move;
    const place = arrivedClaim(recorded, move)?.node ?? nodeOfDisks(move, instance.status?.nodeName);
    return planClaim({
      instance: instance.metadata,
      power: instance.spec.power,
      recorded,
      seen,
      guest,
      node: this.nodeOf(place),
      move,
      now: ctx.clock.now(),
    });
  }

  nodeOf(name: string | undefined): NodeSeen {
    return name === undefined ? { state: "Answering" } : nodeSeen(this.ctx, name);
  }

  /** What follows when its claim was asked to go; asks for another look when time alone may change that. */
  get drain(): DrainPlan | undefined {
    const name = this.instance.status?.claim?.name;
    const plan = drainOf(
      this.instance,
      this.pods.find(({ metadata }) => metadata.name === name),
      this.ctx,
      this.ctx.drain.deadlineMs,
    );
    if (plan?.recheckMs !== undefined) this.retryAfter(plan.recheckMs);
    return plan;
  }

  /** Asks to be called again; the shortest wish wins. */
  retryAfter(ms: number): void {
    this.#retryMs = Math.min(ms, this.#retryMs ?? Number.POSITIVE_INFINITY);
  }

  get requeue(): { afterMs: number } | undefined {
    return this.#retryMs === undefined ? undefined : { afterMs: Math.max(1, this.#retryMs) };
  }

  /** What the status is computed from. */
  facts(): StatusFacts {
    const { instance, problems, nics } = this;
    const plan = this.plan;
    const claim = this.claims.find(({ name }) => name === plan.record?.name);
    const nodeName = plan.record?.node ?? nodeOfDisks(this.move, instance.status?.nodeName);
    return {
      instance,
      plan,
      claim,
      nodeName,
      node: this.nodeOf(nodeName),
      nics,
      problems,
      move: this.move,
      runtime: nodeName === undefined ? undefined : currentRuntime(this.ctx.hosts.get({ name: nodeName })?.status),
      past: pastMigrations(instance.status ?? {}, this.migrations, instance.metadata.uid),
      drain: this.drain,
      now: new Date(this.ctx.clock.now()),
    };
  }
}
