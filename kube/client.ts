/** Typed access to the API server: one method per verb, the server's own words in every error. */
import { defaultCredentials, kubeconfigCredentials, type Credentials } from "./credentials.ts";
import { apiErrorFrom, type ApiError } from "./errors.ts";
import { HttpTransport, type HttpAnswer, type HttpRequest } from "./http.ts";
import { keyOf, keyText } from "./keys.ts";
import { apiVersionOf, resourcePath, resourceText } from "./resources.ts";
import type { Draft, JsonPatchOp, KubeObject, ObjectKey, ResourceType } from "./types.ts";

export interface ClientOptions {
  userAgent?: string;
  /** For one request, until its whole answer is there; ms. */
  deadlineMs?: number;
  /** Asked right before every write; throws when we must not write any more (see LeaderElector.assertLeading). */
  guard?: () => void;
}

export interface ListOptions {
  namespace?: string | undefined;
  labelSelector?: string | undefined;
  fieldSelector?: string | undefined;
}

/** One page of a list. */
export interface ListPage<T> {
  items: T[];
  resourceVersion: string;
  /** Hands out the next page; undefined on the last. */
  next?: string;
}

/** Objects per page: large enough that most lists are one request, small enough that no answer is huge. */
const PAGE = 500;

/**
 * A client of one API server. Every call has a deadline, and may be repeated except create. All methods throw ApiError when
 * the server refuses and TransportError when no answer could be had.
 */
export class KubeClient {
  readonly transport: HttpTransport;
  readonly credentials: Credentials;
  readonly #options: ClientOptions;

  constructor(credentials: Credentials, options: ClientOptions = {}) {
    this.credentials = credentials;
    this.#options = options;
    this.transport = new HttpTransport(credentials, options.userAgent ?? "drover");
  }

  /**
   * As KUBECONFIG says; without it as the pod's service account.
   * @throws when there is neither
   */
  static fromDefault(options: ClientOptions = {}): KubeClient {
    return new KubeClient(defaultCredentials(), options);
  }

  /** @param text a kubeconfig */
  static fromKubeconfig(text: string, options: ClientOptions = {}): KubeClient {
    return new KubeClient(kubeconfigCredentials(text), options);
  }

  /** The same server and credentials, other options: a guard for the writes of a leader, another deadline. */
  with(options: ClientOptions): KubeClient {
    return new KubeClient(this.credentials, { ...this.#options, ...options });
  }

  /** The object; undefined when there is none. */
  async get<T extends KubeObject>(type: ResourceType<T>, key: ObjectKey, signal?: AbortSignal): Promise<T | undefined> {
    const answer = await this.#ask({ method: "GET", path: resourcePath(type, key), signal });
    return answer.status === 404 ? undefined : bodyOf<T>(answer, `get ${nameOf(type, key)}`);
  }

  /** All objects, page by page; a list that changed too much meanwhile to be continued is begun once more. */
  async list<T extends KubeObject>(type: ResourceType<T>, options: ListOptions = {}, signal?: AbortSignal): Promise<T[]> {
    const items: T[] = [];
    await this.listPages(type, options, (page) => void items.push(...page.items), {
      signal,
      restart: () => void (items.length = 0),
    });
    return items;
  }

  /**
   * Hands each page to `take` and returns the resourceVersion of the list. When the server no longer keeps the rest of a
   * list (410), `restart` is called and the list begins anew, once, in one piece.
   */
  async listPages<T extends KubeObject>(
    type: ResourceType<T>,
    options: ListOptions,
    take: (page: ListPage<T>) => void,
    more: { signal?: AbortSignal | undefined; restart: () => void; pageSize?: number },
  ): Promise<string> {
    let limit = more.pageSize ?? PAGE;
    let token: string | undefined;
    for (;;) {
      try {
        const page = await this.listPage(type, options, limit, token, more.signal);
        take(page);
        if (page.next === undefined) return page.resourceVersion;
        token = page.next;
      } catch (error) {
        if (token === undefined || !(error as Partial<ApiError>).isExpired) throw error;
        more.restart();
        token = undefined;
        limit = 0;
      }
    }
  }

  /** One page. `limit` 0 asks for everything at once. */
  async listPage<T extends KubeObject>(
    type: ResourceType<T>,
    options: ListOptions,
    limit: number,
    token?: string,
    signal?: AbortSignal,
  ): Promise<ListPage<T>> {
    const answer = await this.#ask({
      method: "GET",
      path: resourcePath(type, options.namespace === undefined ? {} : { namespace: options.namespace }),
      query: {
        labelSelector: options.labelSelector,
        fieldSelector: options.fieldSelector,
        limit: limit > 0 ? String(limit) : undefined,
        continue: token,
      },
      signal,
    });
    const list = bodyOf<{ metadata: { resourceVersion?: string; continue?: string }; items?: T[] | null }>(
      answer,
      `list ${resourceText(type)}`,
    );
    const apiVersion = apiVersionOf(type);
    // Items of built-in lists come without apiVersion and kind.
    const items = (list.items ?? []).map((item) => (item.kind ? item : { ...item, apiVersion, kind: type.kind }));
    const page = { items, resourceVersion: list.metadata.resourceVersion ?? "" };
    return list.metadata.continue ? { ...page, next: list.metadata.continue } : page;
  }

  /** The resources that the server has in a group and version; none when it does not know them. */
  async discover(group: string, version: string): Promise<ResourceType[]> {
    const path = group === "" ? `/api/${version}` : `/apis/${group}/${version}`;
    const answer = await this.#ask({ method: "GET", path });
    if (answer.status === 404) return [];
    const { resources = [] } = bodyOf<{ resources?: { name: string; kind: string; namespaced: boolean }[] }>(
      answer,
      `discover ${path}`,
    );
    // Names with a slash are subresources.
    return resources
      .filter(({ name }) => !name.includes("/"))
      .map(({ name, kind, namespaced }) => ({ group, version, plural: name, kind, namespaced }));
  }

  /** Makes the object. Not to be repeated blindly: the second time the server answers 409 AlreadyExists (`isConflict`). */
  async create<T extends KubeObject>(type: ResourceType<T>, object: Draft<T>, options: { manager?: string } = {}): Promise<T> {
    const { namespace, name } = object.metadata;
    const answer = await this.#write({
      method: "POST",
      path: resourcePath(type, namespace ? { namespace } : {}),
      query: { fieldManager: options.manager },
      body: JSON.stringify(object),
    });
    return bodyOf<T>(answer, `create ${nameOf(type, namespace ? { namespace, name } : { name })}`);
  }

  /** Replaces the object; with metadata.resourceVersion set, only if nobody wrote since (else 409). */
  async replace<T extends KubeObject>(
    type: ResourceType<T>,
    object: T,
    options: { subresource?: string; manager?: string } = {},
  ): Promise<T> {
    const key = keyOf(object);
    const answer = await this.#write({
      method: "PUT",
      path: resourcePath(type, key, options.subresource),
      query: { fieldManager: options.manager },
      body: JSON.stringify(object),
    });
    return bodyOf<T>(answer, `replace ${nameOf(type, key)}`);
  }

  /**
   * Server-side apply: after it, the object has these fields with these values, owned by `manager`; fields that the manager
   * applied before and left out now are gone. May be repeated. `force` (default) takes fields over from other managers;
   * without it a field that is another's is a 409.
   */
  async apply<T extends KubeObject>(
    type: ResourceType<T>,
    object: Draft<T>,
    options: { manager: string; force?: boolean; subresource?: "status" },
  ): Promise<T> {
    const key = keyOf(object);
    const answer = await this.#write({
      method: "PATCH",
      path: resourcePath(type, key, options.subresource),
      query: { fieldManager: options.manager, force: String(options.force ?? true) },
      contentType: "application/apply-patch+yaml",
      body: JSON.stringify(object),
    });
    return bodyOf<T>(answer, `apply ${nameOf(type, key)}`);
  }

  /** RFC 6902. A `test` that fails is a 422 (reason Invalid): that is how to compare and set. */
  async patchJson<T extends KubeObject>(
    type: ResourceType<T>,
    key: ObjectKey,
    operations: readonly JsonPatchOp[],
    options: { subresource?: string; manager?: string } = {},
  ): Promise<T> {
    return this.#patch(type, key, JSON.stringify(operations), "application/json-patch+json", options);
  }

  /** RFC 7386: null deletes a field, a list is replaced as a whole. With metadata.resourceVersion in it: 409 if somebody wrote since. */
  async patchMerge<T extends KubeObject>(
    type: ResourceType<T>,
    key: ObjectKey,
    patch: object,
    options: { subresource?: string; manager?: string } = {},
  ): Promise<T> {
    return this.#patch(type, key, JSON.stringify(patch), "application/merge-patch+json", options);
  }

  /**
   * Deletes; true when it was there. With `uid` (or resourceVersion) only that very object: another of the same name is left
   * alone and counts as "already gone".
   */
  async delete(
    type: ResourceType,
    key: ObjectKey,
    options: {
      uid?: string;
      resourceVersion?: string;
      gracePeriodSeconds?: number;
      propagationPolicy?: "Background" | "Foreground" | "Orphan";
    } = {},
  ): Promise<boolean> {
    const { uid, resourceVersion, gracePeriodSeconds, propagationPolicy } = options;
    const preconditions = uid === undefined && resourceVersion === undefined ? undefined : { uid, resourceVersion };
    const answer = await this.#write({
      method: "DELETE",
      path: resourcePath(type, key),
      body: JSON.stringify({ apiVersion: "v1", kind: "DeleteOptions", preconditions, gracePeriodSeconds, propagationPolicy }),
    });
    if (answer.status === 404) return false;
    if (answer.status < 300) return true;
    const error = refusal(answer, `delete ${nameOf(type, key)}`);
    if (error.isConflict && uid !== undefined) {
      // Told by the object that is there, not by the server's words, which differ from version to version.
      const now = await this.get(type, key);
      if (now?.metadata.uid !== uid) return false;
    }
    throw error;
  }

  async #patch<T extends KubeObject>(
    type: ResourceType<T>,
    key: ObjectKey,
    body: string,
    contentType: string,
    options: { subresource?: string; manager?: string },
  ): Promise<T> {
    const answer = await this.#write({
      method: "PATCH",
      path: resourcePath(type, key, options.subresource),
      query: { fieldManager: options.manager },
      contentType,
      body,
    });
    return bodyOf<T>(answer, `patch ${nameOf(type, key)}`);
  }

  async #write(request: Omit<HttpRequest, "deadlineMs">): Promise<HttpAnswer> {
    this.#options.guard?.();
    return this.#ask(request);
  }

  #ask(request: Omit<HttpRequest, "deadlineMs">): Promise<HttpAnswer> {
    return this.transport.request({ ...request, deadlineMs: this.#options.deadlineMs ?? 30_000 });
  }
}

const nameOf = (type: ResourceType, key: ObjectKey): string => `${type.kind} ${keyText(key)}`;

const refusal = (answer: HttpAnswer, asked: string): ApiError =>
  apiErrorFrom(asked, answer.status, answer.body, answer.retryAfter);

// oxlint-disable-next-line typescript/no-unnecessary-type-parameters -- what the server sends is what it promised for this resource
const bodyOf = <T>(answer: HttpAnswer, asked: string): T => {
  if (answer.status >= 200 && answer.status < 300) return JSON.parse(answer.body) as T;
  throw refusal(answer, asked);
};
