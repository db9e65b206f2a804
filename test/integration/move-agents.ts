/** Both agents of every move, by script: they write what real ones would, and stop where they are told to. */
import type { Instance } from "../../crds/instance.ts";
import type { HandoverState, Migration, MigrationSource, MigrationTarget } from "../../crds/migration.ts";
import { SOURCE_MANAGER, TARGET_MANAGER } from "../../crds/names.ts";
import { migrations } from "../../crds/resources.ts";
import { ApiError, Informer, keyOf, keyText, type ObjectKey } from "../../kube/index.ts";
import type { Cluster, NodeStandIn } from "./operator-kit.ts";

/** Steps of a move that the script can be held at, in order; each is what comes next. */
export type Step =
  | "prepare"
  | "ready"
  | "copy-disks"
  | "copy-memory"
  | "write-handover"
  | "switch"
  | "write-done"
  | "release-source"
  | "give-up-source"
  | "release-target";

export interface Failure {
  side: "source" | "target";
  reason: string;
  message: string;
  retryable: boolean;
}

const whyOf = ({ reason, message, retryable }: Failure) => ({ reason, message, retryable });

export class MoveAgents {
  readonly seen: Informer<Migration>;
  readonly #cluster: Cluster;
  readonly #nodes: NodeStandIn;
  readonly #ended = new AbortController();
  readonly #busy = new Map<string, Promise<void>>();
  /** What a move must not go past, by the Migration's name. */
  readonly #held = new Map<string, Set<Step>>();
  /** Moves that fail once they are prepared, by the Migration's name and attempt. */
  readonly failing = new Map<string, Failure>();
  failures: unknown[] = [];

  constructor(cluster: Cluster, nodes: NodeStandIn) {
    this.#cluster = cluster;
    this.#nodes = nodes;
    this.seen = new Informer(cluster.client, migrations);
    this.seen.onChange(({ key }) => this.#queue(key));
    nodes.isHeld = (instance) => this.#holds(instance);
  }

  async start(): Promise<void> {
    this.seen.start(this.#ended.signal);
    await this.seen.synced;
  }

  async stop(): Promise<void> {
    this.#ended.abort();
    await this.seen.stopped();
    await Promise.all(this.#busy.values());
  }

  hold(name: string, ...steps: Step[]): void {
    this.#held.set(name, new Set(steps));
  }

  /** Lets go of all, or of these, and looks again. */
  release(name: string, ...steps: Step[]): void {
    if (steps.length === 0) this.#held.delete(name);
    for (const step of steps) this.#held.get(name)?.delete(step);
    this.lookAgain();
  }

  lookAgain(): void {
    for (const one of this.seen.list()) this.#queue(keyOf(one));
    this.#nodes.lookAgain();
  }

  /** As the agents' note: from the moment that they took it up until the end. */
  #holds({ metadata }: Instance): boolean {
    return this.seen.list().some(({ metadata: { namespace }, status }) => {
      if (namespace !== metadata.namespace || status?.instanceUid !== metadata.uid) return false;
      return ["Copying", "Handover", "Target"].includes(status.handover?.state ?? "");
    });
  }

  #queue(key: ObjectKey): void {
    const text = keyText(key);
    const before = this.#busy.get(text) ?? Promise.resolve();
    const next = before
      .then(() => this.#look(key))
      .catch((error: unknown) => {
        // Deleted while it was looked at.
        if (!(error instanceof ApiError && (error.isNotFound || error.isConflict))) this.failures.push(error);
      });
    this.#busy.set(text, next);
  }

  #isSilent(node: string | undefined): boolean {
    return node === undefined || this.#nodes.silent.has(node);
  }

  async #look(key: ObjectKey): Promise<void> {
    const migration = this.seen.get(key);
    const record = migration?.status?.handover;
    // Of those in place there is one agent only: UpdateAgents.
    if (migration === undefined || record === undefined || migration.spec.mode === "InPlace") return;
    const { sourceNode, targetNode } = migration.status ?? {};
    if (!this.#isSilent(targetNode)) await this.#target(migration, record.attempt, record.state);
    if (!this.#isSilent(sourceNode)) await this.#source(migration, record.attempt, record.state);
    // A node that comes to hold the guest speaks of it.
    if (record.state === "Done" || record.state === "Source") this.#nodes.lookAgain();
  }

  #may({ metadata }: Migration, step: Step): boolean {
    return this.#held.get(metadata.name)?.has(step) !== true;
  }

  async #target(migration: Migration, attempt: number, state: HandoverState): Promise<void> {
    const said = migration.status?.target?.attempt === attempt ? migration.status.target.state : undefined;
    const source = migration.status?.source?.attempt === attempt ? migration.status.source.state : undefined;
    const say = (target: Omit<MigrationTarget, "attempt">) =>
      this.#say(migration, { target: { attempt, ...target } }, TARGET_MANAGER);
    const failure = this.failing.get(`${migration.metadata.name}/${attempt}`);
    if (state === "Source") {
      if (said !== "Released" && this.#may(migration, "release-target"))
        await say({ state: "Released", ...(failure?.side === "target" ? whyOf(failure) : {}) });
      return;
    }
    if (said === undefined && this.#may(migration, "prepare")) return say({ state: "Preparing" });
    if (state === "Copying" && failure?.side === "target" && said === "Preparing") {
      await say({ state: "GivenUp", ...whyOf(failure) });
      return this.#record(migration, attempt, "Copying", "Source");
    }
    if (said === "Preparing" && this.#may(migration, "ready")) return say({ state: "Ready", endpoint: "127.0.0.1:9413" });
    if (state === "Handover" && source === "Completed" && said === "Ready" && this.#may(migration, "write-done"))
      return say({ state: "Running" });
    if (state === "Target")
      return said === "Running" ? this.#record(migration, attempt, "Target", "Done") : say({ state: "Running" });
    if (state === "Handover" && said === "Running") return this.#record(migration, attempt, "Handover", "Done");
  }

  async #source(migration: Migration, attempt: number, state: HandoverState): Promise<void> {
    const said = migration.status?.source?.attempt === attempt ? migration.status.source.state : undefined;
    const target = migration.status?.target?.attempt === attempt ? migration.status.target.state : undefined;
    const say = (source: Omit<MigrationSource, "attempt">) =>
      this.#say(migration, { source: { attempt, ...source } }, SOURCE_MANAGER);
    const failure = this.failing.get(`${migration.metadata.name}/${attempt}`);
    switch (state) {
      case "Copying":
        if (target !== "Ready") return;
        if (said === undefined)
          return this.#may(migration, "copy-disks") ? say({ state: "CopyingDisk", progress: "10%" }) : undefined;
        if (failure?.side === "source") {
          await say({ state: "GivenUp", ...whyOf(failure) });
          return this.#record(migration, attempt, "Copying", "Source");
        }
        if (said === "CopyingDisk")
          return this.#may(migration, "copy-memory") ? say({ state: "CopyingMemory", progress: "60%" }) : undefined;
        if (this.#may(migration, "write-handover")) await this.#record(migration, attempt, "Copying", "Handover");
        return;
      case "Handover":
        if (said === "CopyingMemory" && this.#may(migration, "switch"))
          await say({ state: "Completed", progress: "100%", pause: "79 ms", pauseMs: 79.2 });
        return;
      case "Done":
        if (said !== "Released" && this.#may(migration, "release-source"))
          await say({ state: "Released", progress: "100%", pause: "79 ms", pauseMs: 79.2 });
        return;
      case "Source":
        if (said !== "GivenUp" && this.#may(migration, "give-up-source")) await say({ state: "GivenUp" });
        return;
      case "Target":
    }
  }

  async #say(migration: Migration, status: Partial<Migration["status"]>, manager: string): Promise<void> {
    const { apiVersion, kind, metadata } = migration;
    const { name, namespace, uid } = metadata;
    await this.#cluster.client.apply(
      migrations,
      { apiVersion, kind, metadata: { name, namespace, uid }, status },
      { manager, subresource: "status" },
    );
  }

  /** Compare and set; whoever was faster is right. */
  async #record({ metadata }: Migration, attempt: number, from: HandoverState, to: HandoverState): Promise<void> {
    try {
      await this.#cluster.client.patchJson(
        migrations,
        keyOf({ metadata }),
        [
          { op: "test", path: "/status/handover", value: { attempt, state: from } },
          { op: "replace", path: "/status/handover", value: { attempt, state: to } },
        ],
        { subresource: "status" },
      );
    } catch (error) {
      if (!(error instanceof ApiError && error.code === 422)) throw error;
    }
  }
}
