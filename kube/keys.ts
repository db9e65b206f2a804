/** Keys of objects and their text form. */
import type { Change, KubeObject, ObjectKey } from "./types.ts";

/** The key of an object. */
export const keyOf = (object: { metadata: { name: string; namespace?: string | undefined } }): ObjectKey => {
  const { namespace, name } = object.metadata;
  return namespace ? { namespace, name } : { name };
};

/** `namespace/name`, or `name` for what is cluster-scoped: the same text for the same object. */
export const keyText = (key: ObjectKey): string => (key.namespace ? `${key.namespace}/${key.name}` : key.name);

/** The inverse of keyText. */
export const parseKey = (text: string): ObjectKey => {
  const slash = text.indexOf("/");
  return slash < 0 ? { name: text } : { namespace: text.slice(0, slash), name: text.slice(slash + 1) };
};

const ownerOf = (object: KubeObject | undefined, kind: string): ObjectKey | undefined => {
  const owner = object?.metadata.ownerReferences?.find((reference) => reference.controller === true && reference.kind === kind);
  if (!object || !owner) return undefined;
  return object.metadata.namespace ? { namespace: object.metadata.namespace, name: owner.name } : { name: owner.name };
};

/**
 * Maps a change of an owned object to the key of its controlling owner of this kind: for `Controller.watch`. When the owner
 * reference itself changed, both owners are told.
 */
export const ownerKeys =
  (kind: string) =>
  (change: Change): ObjectKey[] => {
    const found = new Map<string, ObjectKey>();
    for (const object of [change.old, change.now]) {
      const key = ownerOf(object, kind);
      if (key) found.set(keyText(key), key);
    }
    return [...found.values()];
  };
