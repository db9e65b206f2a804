/** Migrations and claims for tests; give what matters to the test. */
import type { Migration, MigrationStatus } from "../../crds/migration.ts";
import { API_VERSION } from "../../crds/names.ts";
import type { GuestStatus, Instance, InstanceSpec, InstanceStatus } from "../../crds/instance.ts";
import { instanceFixture, UID } from "../instance/fixtures.ts";
import type { Pod } from "../../kube/index.ts";

export const CLAIM = "11111111-1111-1111-1111-111111111111";
export const NOW = Date.parse("2026-06-01T12:00:00Z");

/** Lives in the claim `CLAIM` on n1. */
export const settled = (
  more: { spec?: Partial<InstanceSpec>; guest?: Partial<GuestStatus> | null; status?: InstanceStatus; deleting?: boolean } = {},
): Instance =>
  instanceFixture({
    spec: more.spec,
    metadata: more.deleting === true ? { deletionTimestamp: "2026-06-01T11:59:00Z" } : {},
    status: {
      nodeName: "n1",
      claim: { name: "drover-web-aaaaa", serial: 1, uid: CLAIM, node: "n1" },
      ...(more.guest === null ? {} : { guest: { state: "Running", claimUid: CLAIM, ...more.guest } }),
      ...more.status,
    },
  });

export const moveFixture = (
  name: string,
  status: MigrationStatus | undefined,
  more: { drain?: string; priority?: Migration["spec"]["priority"] } = {},
): Migration => ({
  apiVersion: API_VERSION,
  kind: "Migration",
  metadata: {
    name,
    namespace: "team-a",
    uid: `uid-of-${name}`,
    resourceVersion: "1",
    generation: 1,
    creationTimestamp: "2026-06-01T11:00:00Z",
    ...(more.drain === undefined ? {} : { labels: { "drover.dev/drain": more.drain } }),
  },
  spec: { instance: "web", mode: "Live", priority: more.priority ?? (more.drain === undefined ? "User" : "Drain") },
  status,
});

export const claimFixture = (more: {
  uid?: string;
  phase?: NonNullable<Pod["status"]>["phase"];
  node?: string | null;
  deleting?: boolean;
  annotations?: Record<string, string>;
  owner?: boolean;
}): Pod => ({
  apiVersion: "v1",
  kind: "Pod",
  metadata: {
    name: "drover-web-aaaaa",
    namespace: "team-a",
    uid: more.uid ?? CLAIM,
    annotations: more.annotations ?? {},
    ...(more.deleting === true ? { deletionTimestamp: "2026-06-01T11:59:00Z" } : {}),
    ownerReferences:
      more.owner === false ? [] : [{ apiVersion: API_VERSION, kind: "Instance", name: "web", uid: UID, controller: true }],
  },
  spec: { containers: [], ...(more.node === null ? {} : { nodeName: more.node ?? "n1" }) },
  status: { phase: more.phase ?? "Running" },
});
