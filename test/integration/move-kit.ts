/** What tests of moves share: a cluster of two nodes with scripted agents, and words to ask it with. */
import { MIGRATION_LABEL } from "../../crds/names.ts";
import type { Instance, InstanceSpec } from "../../crds/instance.ts";
import type { Migration, MigrationSpec } from "../../crds/migration.ts";
import { instances, migrations } from "../../crds/resources.ts";
import { resources, type Pod } from "../../kube/index.ts";
import { instanceFixture } from "../../operator/instance/fixtures.ts";
import { MoveAgents } from "./move-agents.ts";
import {
  NAMESPACE,
  NetworkStandIn,
  NodeStandIn,
  hostSays,
  makeNetwork,
  makeNode,
  makePool,
  startCluster,
  until,
  type Cluster,
} from "./operator-kit.ts";

export const POOLS = [{ name: "local", ready: true }];
export const keyFor = (name: string) => ({ namespace: NAMESPACE, name });
export const conditionOf = (object: Instance | Migration | undefined, type: string) =>
  object?.status?.conditions?.find((one) => one.type === type);

export class MoveWorld {
  readonly cluster: Cluster;
  readonly nodes: NodeStandIn;
  readonly agents: MoveAgents;
  readonly network = new NetworkStandIn();

  constructor(cluster: Cluster) {
    this.cluster = cluster;
    this.nodes = new NodeStandIn(cluster);
    this.agents = new MoveAgents(cluster, this.nodes);
  }

  /** Nodes of these names, with the pool `local`. */
  static async start(...names: string[]): Promise<MoveWorld> {
    const world = new MoveWorld(await startCluster());
    const { client } = world.cluster;
    await makePool(client, "local");
    for (const name of names) await world.addNode(name);
    await makeNetwork(client, "blue");
    await world.agents.start();
    return world;
  }

  async stop(): Promise<void> {
    await this.agents.stop();
    await this.nodes.stop();
    await this.cluster.stop();
  }

  async addNode(name: string, gib = 100): Promise<void> {
    await makeNode(this.cluster.client, name, "local", gib);
    await hostSays(this.cluster.client, name, POOLS);
  }

  get failures(): unknown[] {
    return [...this.nodes.failures, ...this.agents.failures];
  }

  /** Throws when a stand-in could not do as a real one would. */
  assertWell(): void {
    if (this.failures.length > 0) throw new AggregateError(this.failures, "a stand-in failed");
  }

  instance = (name: string): Instance | undefined => this.cluster.seenInstances.get(keyFor(name));
  move = (name: string): Migration | undefined => this.agents.seen.get(keyFor(name));
  claims = (instance: string): Pod[] =>
    this.cluster.seenPods.list().filter((pod) => pod.metadata.ownerReferences?.[0]?.name === instance);
  targetClaims = (instance: string): Pod[] =>
    this.claims(instance).filter(({ metadata }) => metadata.labels?.[MIGRATION_LABEL] !== undefined);

  /** Makes an instance, and waits until it is Ready. */
  async run(name: string, spec: Partial<InstanceSpec> = {}): Promise<Instance> {
    const { apiVersion, kind, spec: whole } = instanceFixture({ spec });
    await this.cluster.client.create(instances, { apiVersion, kind, metadata: keyFor(name), spec: whole });
    return this.whenInstance(name, "Ready", (one) => conditionOf(one, "Ready")?.status === "True");
  }

  whenInstance(name: string, what: string, ask: (instance: Instance) => boolean): Promise<Instance> {
    return until(`${name}: ${what}`, this.cluster.seenInstances, () => {
      const found = this.instance(name);
      return found !== undefined && ask(found) ? found : undefined;
    });
  }

  begin(name: string, spec: Partial<MigrationSpec> & { instance: string }): Promise<Migration> {
    return this.cluster.client.create(migrations, {
      apiVersion: "drover.dev/v1alpha1",
      kind: "Migration",
      metadata: keyFor(name),
      spec: { mode: "Live", ...spec },
    });
  }

  phase(name: string, want: string, reason?: string): Promise<Migration> {
    return until(`${name} is ${want} ${reason ?? ""}`, this.agents.seen, () => {
      const found = this.move(name);
      return found?.status?.phase === want && (reason === undefined || found.status.reason === reason) ? found : undefined;
    });
  }

  cancel(name: string): Promise<Migration> {
    return this.cluster.client.patchMerge<Migration>(migrations, keyFor(name), { spec: { cancel: true } });
  }

  change(name: string, spec: Partial<InstanceSpec>): Promise<Instance> {
    return this.cluster.client.patchMerge<Instance>(instances, keyFor(name), { spec });
  }

  /** Deletes an instance, and waits until it is gone. */
  async remove(name: string): Promise<void> {
    await this.cluster.client.delete(instances, keyFor(name));
    await until(`${name} is gone`, this.cluster.seenInstances, () => this.instance(name) === undefined);
  }

  /** How an instance stands after a move that came to nothing: as before it. */
  async isAsBefore(before: Instance): Promise<void> {
    const { name } = before.metadata;
    await until("no claim of the move is left", this.cluster.seenPods, () => this.claims(name).length === 1);
    await this.whenInstance(name, "runs where it was", ({ status }) => {
      const same = status?.nodeName === before.status?.nodeName && status?.claim?.uid === before.status?.claim?.uid;
      return same && status?.phase === "Running" && status.migration === undefined && status.lastMigration !== undefined;
    });
  }

  async eventsOf(kind: string, name: string): Promise<string[]> {
    const events = await this.cluster.client.list(resources.events, { namespace: NAMESPACE });
    return events
      .filter(({ regarding }) => regarding?.kind === kind && regarding.name === name)
      .map(({ type, reason }) => `${type} ${reason}`);
  }
}

export const otherThan = (node: string | undefined): string => (node === "n1" ? "n2" : "n1");
