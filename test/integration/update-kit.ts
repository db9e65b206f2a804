/** What tests of updates in place share: the one agent of each update by script, runtimes of nodes, and words to ask with. */
import type { GuestStatus, Instance } from "../../crds/instance.ts";
import type {
  HandoverState,
  Migration,
  MigrationSource,
  MigrationSpec,
  MigrationStatus,
  MigrationTarget,
} from "../../crds/migration.ts";
import { AGENT_MANAGER, SOURCE_MANAGER, TARGET_MANAGER } from "../../crds/names.ts";
import type { Host } from "../../crds/host.ts";
import { hosts, instances, migrations, rollouts } from "../../crds/resources.ts";
import type { Rollout, RolloutSpec } from "../../crds/rollout.ts";
import { ApiError, Informer, keyOf, keyText, type ObjectKey } from "../../kube/index.ts";
import { keyFor, MoveWorld } from "./move-kit.ts";
import { until } from "./operator-kit.ts";

export type UpdateStep = "prepare" | "ready" | "handover" | "switch" | "release" | "give-up";

interface Failure {
  reason: string;
  message: string;
  retryable: boolean;
}

const QEMU: Record<string, string> = { r1: "10.0.2", r2: "10.0.13" };
export const qemuOf = (runtime: string): string => QEMU[runtime] ?? "10.1.0";
const MACHINES = ["pc-q35-10.0"];

export class UpdateWorld {
  readonly moves: MoveWorld;
  readonly rollouts: Informer<Rollout>;
  readonly #ended = new AbortController();
  readonly #busy = new Map<string, Promise<void>>();
  /** What an update must not go past, by the Migration's name. */
  readonly #held = new Map<string, Set<UpdateStep>>();
  /** Instances whose new QEMU does not come up, by name. */
  readonly failing = new Map<string, Failure>();
  /** Instances whose guest dies in the new QEMU at once, and is started again; by name. */
  readonly dying = new Set<string>();
  /** Why an attempt was given up, by the Migration's name and attempt. */
  readonly #gaveUp = new Map<string, Failure>();
  /** The most updates that were under way at one time: in all, and of one node. */
  most = { cluster: 0, node: 0 };
  failures: unknown[] = [];
  /** What guests start in, by node. */
  readonly #current = new Map<string, string>();

  constructor(moves: MoveWorld) {
    this.moves = moves;
    this.rollouts = new Informer(moves.cluster.client, rollouts);
    moves.agents.seen.onChange(({ key }) => {
      this.#count();
      this.#queue(key);
    });
    moves.nodes.guestFor = ({ status }) => {
      const version = this.#current.get(status?.nodeName ?? "") ?? "r1";
      return { runtimeVersion: version, qemuVersion: qemuOf(version) };
    };
  }

  static async start(...nodes: string[]): Promise<UpdateWorld> {
    const world = new UpdateWorld(await MoveWorld.start(...nodes));
    world.rollouts.start(world.#ended.signal);
    await world.rollouts.synced;
    return world;
  }

  async stop(): Promise<void> {
    this.#ended.abort();
    await this.rollouts.stopped();
    await Promise.all(this.#busy.values());
    await this.moves.stop();
  }

  get client() {
    return this.moves.cluster.client;
  }

  assertWell(): void {
    this.moves.assertWell();
    if (this.failures.length > 0) throw new AggregateError(this.failures, "a stand-in failed");
  }

  /** The runtimes of a node, the last of which is current. */
  async hasRuntimes(node: string, ...versions: string[]): Promise<void> {
    const current = versions.at(-1) ?? "";
    this.#current.set(node, current);
    const runtimes = versions.map((version) => ({
      version,
      qemuVersion: qemuOf(version),
      machineTypes: MACHINES,
      current: version === current,
      instances: 0,
    }));
    const status = { runtimes, runtimeVersion: current, qemuVersion: qemuOf(current), machineTypes: MACHINES };
    await this.client.patchMerge<Host>(hosts, { name: node }, { status }, { subresource: "status" });
  }

  hold(name: string, ...steps: UpdateStep[]): void {
    this.#held.set(name, new Set(steps));
  }

  release(name: string, ...steps: UpdateStep[]): void {
    if (steps.length === 0) this.#held.delete(name);
    for (const step of steps) this.#held.get(name)?.delete(step);
    this.lookAgain();
  }

  lookAgain(): void {
    for (const one of this.moves.agents.seen.list()) this.#queue(keyOf(one));
    this.moves.nodes.lookAgain();
  }

  update(name: string, spec: Partial<MigrationSpec> & { instance: string }): Promise<Migration> {
    return this.moves.begin(name, { mode: "InPlace", ...spec });
  }

  rollout = (name: string): Rollout | undefined => this.rollouts.get({ name });

  whenRollout(name: string, what: string, ask: (rollout: Rollout) => boolean): Promise<Rollout> {
    return until(`roll-out ${name}: ${what}`, this.rollouts, () => {
      const found = this.rollout(name);
      return found !== undefined && ask(found) ? found : undefined;
    });
  }

  change(name: string, spec: RolloutSpec): Promise<Rollout> {
    return this.client.patchMerge<Rollout>(rollouts, { name }, { spec });
  }

  /** The Migrations that a roll-out has made. */
  made = (rollout: string): Migration[] =>
    this.moves.agents.seen.list().filter(({ metadata }) => metadata.labels?.["drover.dev/rollout"] === rollout);

  /** What an agent says of a guest, beside what it has said. */
  async says(name: string, guest: Partial<GuestStatus>): Promise<void> {
    await this.client.patchMerge<Instance>(instances, keyFor(name), { status: { guest } }, { subresource: "status" });
  }

  #count(): void {
    const nodes = new Map<string, number>();
    for (const { spec, status } of this.moves.agents.seen.list()) {
      const ended = ["Succeeded", "Failed", "Cancelled"].includes(status?.phase ?? "");
      if (spec.mode !== "InPlace" || status?.handover === undefined || ended) continue;
      nodes.set(status.sourceNode ?? "", (nodes.get(status.sourceNode ?? "") ?? 0) + 1);
    }
    const all = [...nodes.values()];
    this.most.node = Math.max(this.most.node, ...all);
    this.most.cluster = Math.max(
      this.most.cluster,
      all.reduce((sum, one) => sum + one, 0),
    );
  }

  #queue(key: ObjectKey): void {
    const text = keyText(key);
    const before = this.#busy.get(text) ?? Promise.resolve();
    const next = before
      .then(() => this.#look(key))
      .catch((error: unknown) => {
        if (!(error instanceof ApiError && (error.isNotFound || error.isConflict))) this.failures.push(error);
      });
    this.#busy.set(text, next);
  }

  #may(name: string, step: UpdateStep): boolean {
    return this.#held.get(name)?.has(step) !== true;
  }

  async #look(key: ObjectKey): Promise<void> {
    const migration = this.moves.agents.seen.get(key);
    const { handover: record, sourceNode = "", runtime } = migration?.status ?? {};
    if (migration?.spec.mode !== "InPlace" || record === undefined || this.moves.nodes.silent.has(sourceNode)) return;
    const { attempt } = record;
    const of = <S extends { attempt: number }>(said: S | undefined): S | undefined =>
      said?.attempt === attempt ? said : undefined;
    const [source, target] = [of(migration.status?.source)?.state, of(migration.status?.target)?.state];
    const failure = this.failing.get(migration.spec.instance);
    const { name } = migration.metadata;
    const sources = (said: Omit<MigrationSource, "attempt">) =>
      this.#say(migration, { source: { attempt, ...said } }, SOURCE_MANAGER);
    const targets = (said: Omit<MigrationTarget, "attempt">) =>
      this.#say(migration, { target: { attempt, ...said } }, TARGET_MANAGER);
    switch (record.state) {
      case "Copying":
        if (target === undefined) return this.#may(name, "prepare") ? targets({ state: "Preparing" }) : undefined;
        if (target === "Preparing" && failure !== undefined) {
          this.#gaveUp.set(`${name}/${attempt}`, failure);
          await targets({ state: "GivenUp", ...failure });
          return this.#record(migration, attempt, "Copying", "Source");
        }
        if (target === "Preparing") return this.#may(name, "ready") ? targets({ state: "Ready" }) : undefined;
        if (source === undefined) return sources({ state: "Waiting", progress: "0%" });
        return this.#may(name, "handover") ? this.#record(migration, attempt, "Copying", "Handover") : undefined;
      case "Handover":
        if (!this.#may(name, "switch")) return;
        await sources({ state: "Completed", progress: "100%", pause: "9 ms", pauseMs: 9.4 });
        await targets({ state: "Running" });
        return this.#record(migration, attempt, "Handover", "Done");
      case "Done":
        if (source === "Released" || !this.#may(name, "release")) return;
        await this.#arrived(migration, runtime?.to);
        return sources({ state: "Released", progress: "100%", pause: "9 ms", pauseMs: 9.4 });
      case "Source":
        if (target === "Released" || !this.#may(name, "give-up")) return;
        await sources({ state: "GivenUp" });
        return targets({ state: "Released", ...this.#gaveUp.get(`${name}/${attempt}`) });
      case "Target":
    }
  }

  /** As its agent does: the guest is the same, what it runs in is not. */
  async #arrived({ spec }: Migration, to: { version: string; qemu?: string | undefined } | undefined): Promise<void> {
    const instance = this.moves.instance(spec.instance);
    const guest = instance?.status?.guest;
    if (instance === undefined || guest === undefined || to === undefined) return;
    const { name, namespace, uid } = instance.metadata;
    const restarts = (guest.restarts ?? 0) + (this.dying.has(name) ? 1 : 0);
    await this.client.apply(
      instances,
      {
        apiVersion: instance.apiVersion,
        kind: instance.kind,
        metadata: { name, namespace, uid },
        status: { guest: { ...guest, restarts, runtimeVersion: to.version, qemuVersion: to.qemu ?? "" } },
      },
      { manager: AGENT_MANAGER, subresource: "status" },
    );
  }

  async #say({ apiVersion, kind, metadata }: Migration, status: Partial<MigrationStatus>, manager: string): Promise<void> {
    const { name, namespace, uid } = metadata;
    await this.client.apply(
      migrations,
      { apiVersion, kind, metadata: { name, namespace, uid }, status },
      { manager, subresource: "status" },
    );
  }

  /** Compare and set; whoever was faster is right. */
  async #record(migration: Migration, attempt: number, from: HandoverState, to: HandoverState): Promise<void> {
    try {
      await this.client.patchJson(
        migrations,
        keyOf(migration),
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
