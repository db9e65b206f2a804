/** One reconcile of one instance: what was read, and what its phases found. Lives as long as the reconcile. */
import { claimName } from "../../crds/names.ts";
import type { GuestStatus, Instance, NicStatus } from "../../crds/instance.ts";
import { keyOf, type ObjectKey, type Pod } from "../../kube/index.ts";
import type { OperatorContext } from "../context.ts";
import { nodeSeen } from "../nodes.ts";
import { planClaim, type ClaimPlan } from "./claim-plan.ts";
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

  /** All claim pods of the instance: those in the cache, and one that was just made. */
  get pods(): Pod[] {
    const { uid, namespace, name } = this.instance.metadata;
    const { claims, recentClaims } = this.ctx;
    const pods = new Map(claims.byIndex("owner", uid).map((pod) => [pod.metadata.name, pod]));
    const serial = this.instance.status?.claim?.serial ?? 1;
    for (const one of [serial, serial + 1]) {
      const key = { namespace, name: claimName(name, uid, one) };
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
    return planClaim({
      instance: instance.metadata,
      power: instance.spec.power,
      recorded,
      seen,
      guest,
      node: this.nodeOf(recorded?.node ?? instance.status?.nodeName),
      now: ctx.clock.now(),
    });
  }

  nodeOf(name: string | undefined): NodeSeen {
    return name === undefined ? { state: "Answering" } : nodeSeen(this.ctx, name);
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
    const nodeName = instance.status?.nodeName ?? plan.record?.node;
    return {
      instance,
      plan,
      claim,
      nodeName,
      node: this.nodeOf(nodeName),
      nics,
      problems,
      now: new Date(this.ctx.clock.now()),
    };
  }
}
