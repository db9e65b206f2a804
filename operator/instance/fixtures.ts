/** Objects for tests, complete and valid; give what matters to the test. */
import { API_VERSION } from "../../crds/names.ts";
import type { Instance, InstanceSpec, InstanceStatus } from "../../crds/instance.ts";
import type { ObjectMeta } from "../../crds/schema.ts";

export const UID = "0d5f3a52-7f6c-4a0e-9b57-6a1d6f1f8f01";

export function instanceFixture(
  overrides: { metadata?: Partial<ObjectMeta>; spec?: Partial<InstanceSpec>; status?: InstanceStatus } = {},
): Instance {
  return {
    apiVersion: API_VERSION,
    kind: "Instance",
    metadata: {
      name: "web",
      namespace: "team-a",
      uid: UID,
      resourceVersion: "7",
      generation: 1,
      creationTimestamp: "2026-01-01T00:00:00Z",
      ...overrides.metadata,
    },
    spec: {
      type: "VirtualMachine",
      power: "Running",
      restart: "OnFailure",
      onDrain: "LiveMigrate",
      image: { url: "http://images.example/tiny.qcow2", checksum: `sha256:${"0".repeat(64)}` },
      cpu: 1,
      memory: "256Mi",
      rootDisk: { pool: "local", size: "1Gi" },
      nics: [{ name: "eth0", network: "blue" }],
      ...overrides.spec,
    },
    status: overrides.status,
  };
}
