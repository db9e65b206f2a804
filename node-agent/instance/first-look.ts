/** When an agent that has just started knows again what runs on its node. */
import type { Instance } from "../../crds/instance.ts";
import type { Change, Clock } from "../../kube/index.ts";
import type { Reporter } from "./reporter.ts";

export interface FirstLookOptions {
  instances: { readonly synced: Promise<void>; list(): Instance[]; onChange(fn: (change: Change<Instance>) => void): () => void };
  reporter: Pick<Reporter, "onTold" | "isTold">;
  clock: Pick<Clock, "setTimeout" | "clearTimeout">;
}

/**
 * Longer than an agent needs that is as slow as its node has just been started, and shorter than a Lease lives: one guest that
 * cannot be looked at must not make the whole node one that cannot be asked.
 */
const LONGEST_MS = 30_000;

/**
 * Resolves when each guest of which the API says that it runs here has been looked at by this process and what was seen stands in
 * the API; half a minute after the instances are known whatever happened, or with the signal. Never rejects.
 */
export async function firstLook({ instances, reporter, clock }: FirstLookOptions, signal: AbortSignal): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  const stop = (): void => resolve();
  if (signal.aborted) return;
  signal.addEventListener("abort", stop, { once: true });
  await Promise.race([instances.synced, promise]);
  const missing = new Set(
    instances
      .list()
      .filter(({ metadata, status }) => status?.guest?.state === "Running" && !reporter.isTold(metadata.uid))
      .map(({ metadata }) => metadata.uid),
  );
  const told = (uid: string): void => {
    missing.delete(uid);
    if (missing.size === 0) resolve();
  };
  const timer = clock.setTimeout(stop, LONGEST_MS);
  const off = [
    reporter.onTold(told),
    instances.onChange(({ old, now }) => {
      if (old !== undefined && now === undefined) told(old.metadata.uid);
    }),
  ];
  if (missing.size === 0) resolve();
  await promise;
  for (const one of off) one();
  clock.clearTimeout(timer);
  signal.removeEventListener("abort", stop);
}
