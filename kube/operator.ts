/**
 * An operator process in the shape of @dot-i/k8s-operator's Operator (start, init, watchResource, handleResourceFinalizer,
 * status writers), on this runtime: informers instead of bare watches, a queue per resource with retries instead of one for
 * all without, errors thrown instead of swallowed, an orderly end instead of process.exit.
 *
 * Not exported by index.ts, so that agents, which are no operators, do not load it.
 */
import { readFile } from "node:fs/promises";
import type { ResourceEvent, ResourceMeta } from "@dot-i/k8s-operator";
import type { KubeClient } from "./client.ts";
import { Controller } from "./controller.ts";
import { errorText } from "./errors.ts";
import { ensureFinalizer, removeFinalizer } from "./finalizers.ts";
import { Informer } from "./informer.ts";
import { keyOf, keyText } from "./keys.ts";
import type { Logger } from "./logger.ts";
import { loadOperatorModule } from "./operator-base.ts";
import { resource, resourcePath, resources } from "./resources.ts";
import type { CustomResourceDefinition } from "./builtin.ts";
import type { KubeObject, ObjectKey, ResourceType } from "./types.ts";

const base = loadOperatorModule();
const Operator = base.default;
const { Added, Modified, Deleted } = base.ResourceEventType;

export interface OperatorProcessOptions {
  client: KubeClient;
  logger: Logger;
  /** Field manager of what it writes. */
  manager: string;
  /** Keys of one watched resource worked on at a time; default 4. */
  workers?: number;
}

export abstract class OperatorProcess extends Operator {
  protected readonly client: KubeClient;
  protected readonly log: Logger;
  readonly #options: OperatorProcessOptions;
  readonly #stop = new AbortController();
  readonly #work: Promise<void>[] = [];
  readonly #types = new Map<string, ResourceType>();
  #failure: { error: unknown } | undefined;

  constructor(options: OperatorProcessOptions) {
    const { logger } = options;
    super({
      debug: (message) => logger.debug(message),
      info: (message) => logger.info(message),
      warn: (message) => logger.warn(message),
      error: (message) => logger.error(message),
    });
    this.#options = options;
    this.client = options.client;
    this.log = logger;
  }

  /**
   * The whole life: `start` (and so `init`), work until the signal aborts or `stop` is called, then wait until all work has
   * ended.
   * @throws what init threw, or the first error of any work; everything else is stopped and awaited before
   */
  async run(signal: AbortSignal): Promise<void> {
    const stop = (): void => this.stop();
    if (signal.aborted) stop();
    else signal.addEventListener("abort", stop, { once: true });
    try {
      await this.start();
    } catch (error) {
      this.#fail(error);
    }
    try {
      // Work may bring more work.
      for (let done = 0; done < this.#work.length; done = this.#work.length) await Promise.all(this.#work.slice(done));
    } finally {
      signal.removeEventListener("abort", stop);
    }
    if (this.#failure) throw this.#failure.error;
  }

  /** Asks everything to end; `run` resolves when it has. May be repeated. */
  override stop(): void {
    this.#stop.abort(new Error("the operator stops"));
  }

  /**
   * Something that runs as long as the operator, such as a leader election. It ends when its signal aborts; an error of it
   * ends the operator.
   */
  protected work(name: string, run: (signal: AbortSignal) => Promise<void>): void {
    const running = run(this.#stop.signal).catch((error: unknown) => {
      this.log.error({ work: name, error: errorText(error) }, "the operator ends because a part of it failed");
      this.#fail(error);
    });
    this.#work.push(running);
  }

  /**
   * Calls onEvent for every object that is there (Added) and for every change of it, in order for each object, several objects
   * at a time. Changes that come while one object is being handled are told as one. An onEvent that throws is called again,
   * later and later. A deletion that came while this process was not running is not told: that is what finalizers are for.
   * Resolves when the first list has been read.
   */
  protected override async watchResource(
    group: string,
    version: string,
    plural: string,
    onEvent: (event: ResourceEvent) => Promise<void>,
    namespace?: string,
  ): Promise<void> {
    const { client, log: logger } = this;
    const type = await this.#typeOf(group, version, plural);
    const id = idOf(type);
    this.#types.set(id, type);
    const informer = new Informer(client, type, { namespace, logger });
    /** What onEvent was last told of, so that an addition, a change and a deletion can be told apart. */
    const told = new Map<string, KubeObject>();
    const tell = (eventType: ResourceEvent["type"], object: KubeObject): Promise<void> =>
      onEvent({ meta: metaOf(id, object), type: eventType, object: structuredClone(object) as ResourceEvent["object"] });
    const reconcile = async (key: ObjectKey): Promise<void> => {
      const text = keyText(key);
      const now = informer.get(key);
      const before = told.get(text);
      if (before && before.metadata.uid !== now?.metadata.uid) {
        await tell(Deleted, before);
        told.delete(text);
      }
      if (!now) return;
      // Remembered before it is told: an addition whose handling failed half-way may have left something for the deletion.
      const eventType = told.has(text) ? Modified : Added;
      told.set(text, now);
      await tell(eventType, now);
    };
    const controller = new Controller({ name: id, workers: this.#options.workers ?? 4, reconcile, logger }).watch(informer);
    this.work(id, async (signal) => {
      informer.start(signal);
      await controller.start(signal);
      await informer.stopped();
    });
    await Promise.race([informer.synced, this.#stopped()]);
  }

  /** Server-side apply of the whole status. @throws ApiError, also when the object is gone */
  protected override async setResourceStatus(meta: ResourceMeta, status: unknown): Promise<ResourceMeta> {
    const { apiVersion, kind } = meta;
    const written = await this.client.apply(
      this.#typeOfMeta(meta),
      { apiVersion, kind, metadata: keyOf({ metadata: meta }), status } as KubeObject,
      { manager: this.#options.manager, subresource: "status" },
    );
    return metaOf(meta.id, written);
  }

  /** Merge patch of the status. @throws ApiError, also when the object is gone */
  protected override async patchResourceStatus(meta: ResourceMeta, status: unknown): Promise<ResourceMeta> {
    const options = { subresource: "status", manager: this.#options.manager };
    return metaOf(meta.id, await this.client.patchMerge(this.#typeOfMeta(meta), keyOf({ metadata: meta }), { status }, options));
  }

  /**
   * Sets our finalizer, or runs deleteAction on an object that is being deleted and removes the finalizer after it succeeded.
   * When deleteAction throws the finalizer stays, and the event comes again. Others' finalizers are never touched.
   * @returns whether the event is dealt with
   */
  protected override async handleResourceFinalizer(
    event: ResourceEvent,
    finalizer: string,
    deleteAction: (event: ResourceEvent) => Promise<void>,
  ): Promise<boolean> {
    if (event.type !== Added && event.type !== Modified) return false;
    const object = event.object as KubeObject;
    const type = this.#typeOfMeta(event.meta);
    const has = object.metadata.finalizers?.includes(finalizer) === true;
    if (!object.metadata.deletionTimestamp) {
      if (!has) await ensureFinalizer(this.client, type, object, finalizer);
      return !has;
    }
    if (has) {
      await deleteAction(event);
      await removeFinalizer(this.client, type, object, finalizer);
    }
    return true;
  }

  /** Exactly these finalizers, if nobody wrote since meta was read. @throws ApiError (a conflict when somebody did) */
  protected override async setResourceFinalizers(meta: ResourceMeta, finalizers: string[]): Promise<void> {
    const { resourceVersion } = meta;
    await this.client.patchMerge(this.#typeOfMeta(meta), keyOf({ metadata: meta }), {
      metadata: { resourceVersion, finalizers },
    });
  }

  protected override getCustomResourceApiUri(group: string, version: string, plural: string, namespace?: string): string {
    const type = resource(group, version, plural, "", namespace !== undefined);
    return this.client.credentials.server + resourcePath(type, namespace === undefined ? {} : { namespace });
  }

  /** Applies a CustomResourceDefinition from a YAML file; one that is there is brought up to date. */
  protected override async registerCustomResourceDefinition(
    crdFile: string,
  ): ReturnType<InstanceType<typeof Operator>["registerCustomResourceDefinition"]> {
    const { parse } = await import("yaml");
    const crd = parse(await readFile(crdFile, "utf8")) as CustomResourceDefinition;
    if (!crd.apiVersion.startsWith("apiextensions.k8s.io/")) throw new Error(`${crdFile} is not a CustomResourceDefinition`);
    const { spec } = await this.client.apply(resources.customResourceDefinitions, crd, { manager: this.#options.manager });
    return { group: spec.group, versions: spec.versions, plural: spec.names.plural };
  }

  #fail(error: unknown): void {
    this.#failure ??= { error };
    this.stop();
  }

  #stopped(): Promise<void> {
    return new Promise((resolve) => {
      if (this.#stop.signal.aborted) resolve();
      else this.#stop.signal.addEventListener("abort", () => resolve(), { once: true });
    });
  }

  /** Kind and scope, which the shape of the base class does not ask for, from the API server's discovery. */
  async #typeOf(group: string, version: string, plural: string): Promise<ResourceType> {
    const found = (await this.client.discover(group, version)).find((one) => one.plural === plural);
    if (!found)
      throw new Error(
        `the API server serves no ${plural} in ${group === "" ? version : `${group}/${version}`}: is its CustomResourceDefinition installed?`,
      );
    return found;
  }

  #typeOfMeta(meta: ResourceMeta): ResourceType {
    const type = this.#types.get(meta.id);
    if (!type) throw new Error(`${meta.id} is not watched by this operator`);
    return type;
  }
}

const idOf = (type: ResourceType): string =>
  `${type.plural}.${type.group === "" ? type.version : `${type.group}/${type.version}`}`;

const metaOf = (id: string, { apiVersion, kind, metadata }: KubeObject): ResourceMeta => ({
  id,
  apiVersion,
  kind,
  name: metadata.name,
  resourceVersion: metadata.resourceVersion ?? "",
  ...(metadata.namespace === undefined ? {} : { namespace: metadata.namespace }),
});
