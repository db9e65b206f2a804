/** A roll-out for tests: r2 is current on n1 and n2. */
import { API_VERSION } from "../../crds/names.ts";
import type { Rollout, RolloutSpec, RolloutStatus } from "../../crds/rollout.ts";
import type { RolloutFacts, RolloutNode } from "./plan.ts";
import { runtimeUpdateSettings } from "./settings.ts";
import type { Outdated } from "./update.ts";

export const SINCE = "2026-03-01T11:00:00.000Z";
export const NOW = Date.parse("2026-03-01T12:00:00Z");

export const rolloutFixture = (status?: RolloutStatus, spec: RolloutSpec = {}): Rollout => ({
  apiVersion: API_VERSION,
  kind: "Rollout",
  metadata: { name: "r2", uid: "ro", resourceVersion: "1", generation: 1, creationTimestamp: "2026-03-01T10:00:00Z" },
  spec,
  ...(status === undefined ? {} : { status }),
});

export const rolling: RolloutStatus = { phase: "Rolling", reason: "Updating", since: SINCE };

/** A node whose outdated instances are in these states; they are called after it: n1-0, n1-1, ... */
export const rolloutNode = (name: string, states: Outdated[] = [], answers = true): RolloutNode => ({
  name,
  answers,
  outdated: () => states.map((state, i) => ({ instance: { namespace: "team-a", name: `${name}-${i}` }, ...state })),
});

export const ready: Outdated = { state: "ready" };

export const rolloutFacts = (more: Partial<RolloutFacts> = {}): RolloutFacts => ({
  rollout: rolloutFixture(rolling),
  version: "r2",
  nodes: [rolloutNode("n1", [ready, ready]), rolloutNode("n2", [ready, ready])],
  allNodes: 2,
  updated: 1,
  total: 5,
  active: [],
  failed: [],
  settings: runtimeUpdateSettings('{"perNode": 1}'),
  now: NOW,
  ...more,
});
