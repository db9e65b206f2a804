/**
 * Finalizers: what keeps an object until our clean-up is done. Take one before making anything outside of the API; remove it
 * only after the clean-up succeeded (a failed one throws before, and so keeps it). Finalizers of others are never touched:
 * every write names the version it was read at, and a write that came in between means reading again.
 */
import type { KubeClient } from "./client.ts";
import { ApiError } from "./errors.ts";
import { keyOf, keyText } from "./keys.ts";
import type { KubeObject, ResourceType } from "./types.ts";

/** As much of KubeClient as finalizers need. */
type FinalizerClient = Pick<KubeClient, "get" | "patchMerge">;

/** Somebody writes all the time: leave it to the queue's back-off. */
const ATTEMPTS = 5;

/**
 * The object with our finalizer on it; no write if it has it. An object that is being deleted is given back as it is: the API
 * server takes no new finalizers then.
 * @throws ApiError, NotFound too when the object went away meanwhile
 */
export const ensureFinalizer = async <T extends KubeObject>(
  client: FinalizerClient,
  type: ResourceType<T>,
  object: T,
  finalizer: string,
): Promise<T> => {
  const changed = await change(client, type, object, (now) =>
    now.metadata.deletionTimestamp || now.metadata.finalizers?.includes(finalizer)
      ? undefined
      : [...(now.metadata.finalizers ?? []), finalizer],
  );
  if (changed) return changed;
  throw new ApiError(404, "NotFound", `${type.kind} ${keyText(keyOf(object))} went away before the finalizer could be set`);
};

/** Removes our finalizer; nothing to do if it is not there or the object is gone. */
export const removeFinalizer = async <T extends KubeObject>(
  client: FinalizerClient,
  type: ResourceType<T>,
  object: T,
  finalizer: string,
): Promise<void> => {
  await change(client, type, object, (now) =>
    now.metadata.finalizers?.includes(finalizer) ? now.metadata.finalizers.filter((one) => one !== finalizer) : undefined,
  );
};

/** Writes the list that `next` gives (undefined: leave it); undefined when that very object is gone. */
const change = async <T extends KubeObject>(
  client: FinalizerClient,
  type: ResourceType<T>,
  object: T,
  next: (now: T) => string[] | undefined,
): Promise<T | undefined> => {
  let now: T | undefined = object;
  for (let attempt = 1; ; attempt++) {
    const finalizers = next(now);
    if (!finalizers) return now;
    try {
      const { uid, resourceVersion } = now.metadata;
      return await client.patchMerge(type, keyOf(now), { metadata: { uid, resourceVersion, finalizers } });
    } catch (error) {
      if (error instanceof ApiError && error.isNotFound) return undefined;
      if (!(error instanceof ApiError && error.isConflict) || attempt === ATTEMPTS) throw error;
      now = await client.get(type, keyOf(object));
      // Of the same name but another object: ours is gone.
      if (!now || (object.metadata.uid !== undefined && now.metadata.uid !== object.metadata.uid)) return undefined;
    }
  }
};
