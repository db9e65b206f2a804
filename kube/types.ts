/** Shapes of API objects, as much of them as a controller reads; nothing here exists at run time. */

/** Names an object of one kind; `namespace` is left out for cluster-scoped kinds. */
export interface ObjectKey {
  namespace?: string;
  name: string;
}

export interface OwnerReference {
  apiVersion: string;
  kind: string;
  name: string;
  uid: string;
  controller?: boolean;
  blockOwnerDeletion?: boolean;
}

export interface ObjectMeta {
  name: string;
  namespace?: string;
  uid?: string;
  resourceVersion?: string;
  generation?: number;
  creationTimestamp?: string;
  deletionTimestamp?: string;
  deletionGracePeriodSeconds?: number;
  finalizers?: string[];
  labels?: Record<string, string>;
  annotations?: Record<string, string>;
  ownerReferences?: OwnerReference[];
  /** Who wrote what; caches leave it out. */
  managedFields?: { manager?: string; subresource?: string }[];
}

/** Any API object. Typed kinds extend it by their structure alone. */
export interface KubeObject {
  apiVersion: string;
  kind: string;
  metadata: ObjectMeta;
}

/** What holds of an object; the same shape in every kind. */
export interface Condition {
  type: string;
  status: "True" | "False" | "Unknown";
  reason: string;
  message: string;
  lastTransitionTime: string;
  observedGeneration?: number;
}

/** An API resource: how its objects are addressed. `object` carries the type of its objects and is never set. */
export interface ResourceType<T extends KubeObject = KubeObject> {
  group: string;
  version: string;
  plural: string;
  kind: string;
  namespaced: boolean;
  readonly object?: T;
}

/** T with every field optional, at every depth; list elements too. */
export type DeepPartial<T> = T extends readonly (infer U)[]
  ? DeepPartial<U>[]
  : T extends object
    ? { [K in keyof T]?: DeepPartial<T[K]> }
    : T;

/** An object as one writes it: named, and with as many of its fields as one wants to own. */
export type Draft<T extends KubeObject> = DeepPartial<Omit<T, "apiVersion" | "kind" | "metadata">> & {
  apiVersion: string;
  kind: string;
  metadata: ObjectMeta | (Partial<ObjectMeta> & { name: string });
};

/** One operation of RFC 6902. */
export type JsonPatchOp =
  | { op: "add" | "replace" | "test"; path: string; value: unknown }
  | { op: "remove"; path: string }
  | { op: "move" | "copy"; from: string; path: string };

/** What an informer tells: `old` alone is a deletion, `now` alone an addition, both a change of the same object (same uid). */
export interface Change<T extends KubeObject = KubeObject> {
  key: ObjectKey;
  old?: T;
  now?: T;
}
