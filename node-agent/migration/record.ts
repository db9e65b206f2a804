/** status.handover of a Migration: who may run the guest. Changed by compare-and-set only. */
import type { Handover, Migration } from "../../crds/migration.ts";
import { migrations } from "../../crds/resources.ts";
import { ApiError, type KubeClient, type ObjectKey } from "../../kube/index.ts";
import type { RecordWrite } from "./handover/types.ts";

/** In the order in which an attempt passes through them; Target can be followed by Source. */
const RANK: Record<Handover["state"], number> = { Copying: 0, Handover: 1, Target: 2, Done: 3, Source: 3 };

/** The newer of two readings of one record: caches and answers do not come in the order in which things happened. Pure. */
export function newest(a: Handover | undefined, b: Handover | undefined): Handover | undefined {
  if (a === undefined || b === undefined) return a ?? b;
  if (a.attempt !== b.attempt) return a.attempt > b.attempt ? a : b;
  return RANK[b.state] >= RANK[a.state] ? b : a;
}

/**
 * Puts `to` in the place of `from`, if that is what stands there. Gives the record as it is then, whoever wrote it; undefined when
 * that Migration is gone. Throws when the API server does not answer: then it may or may not be stored, now or later.
 */
export async function writeRecord(
  client: Pick<KubeClient, "patchJson" | "get">,
  migration: ObjectKey & { uid: string },
  { from, to }: RecordWrite,
): Promise<Handover | undefined> {
  const { uid, ...key } = migration;
  try {
    const stored = await client.patchJson<Migration>(
      migrations,
      key,
      [
        { op: "test", path: "/metadata/uid", value: uid },
        { op: "test", path: "/status/handover", value: from },
        { op: "replace", path: "/status/handover", value: to },
      ],
      { subresource: "status" },
    );
    return stored.status?.handover;
  } catch (error) {
    if (!(error instanceof ApiError) || (!error.isNotFound && error.code !== 422)) throw error;
  }
  const now = await client.get(migrations, key);
  return now?.metadata.uid === uid ? now.status?.handover : undefined;
}
