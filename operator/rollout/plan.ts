/** What a roll-out does next, and what is said of it. Pure: the same facts give the same plan. */
import type { Rollout, RolloutStatus } from "../../crds/rollout.ts";
import type { ObjectKey } from "../../kube/index.ts";
import type { RuntimeUpdateSettings } from "./settings.ts";
import type { Outdated } from "./update.ts";
import { clockText, windowAt } from "./window.ts";

/** A Migration of the roll-out that has not ended. */
export interface ActiveUpdate {
  key: ObjectKey;
  node: string;
  /** It has its turn; one that has not can be taken back. */
  begun: boolean;
}

export interface FailedUpdate {
  /** `team-a/web` */
  instance: string;
  /** `team-a/update-web-1234abcd` */
  migration: string;
  message: string;
  endedAt: string;
}

export interface RolloutNode {
  name: string;
  /** Its agent answers. */
  answers: boolean;
  /** Instances that run in another runtime; asked for only as far as they are needed. */
  outdated: (since: string) => Iterable<{ instance: ObjectKey } & Outdated>;
}

export interface RolloutFacts {
  rollout: Rollout;
  /** The runtime's version; undefined: it is current on no node any more. */
  version: string | undefined;
  /** The nodes whose current runtime it is, and how many say which one is theirs. */
  nodes: readonly RolloutNode[];
  allNodes: number;
  updated: number;
  total: number;
  active: readonly ActiveUpdate[];
  failed: readonly FailedUpdate[];
  settings: RuntimeUpdateSettings;
  /** ms since 1970 */
  now: number;
}

export interface RolloutPlan {
  phase: NonNullable<RolloutStatus["phase"]>;
  /** One CamelCase word. */
  reason: string;
  message: string;
  /** Updates that failed in this round. */
  failed: number;
  /** The beginning of the round, as it will stand in the status. */
  since: string | undefined;
  /** spec.resumedAt, once it was acted on. */
  resumedAt: string | undefined;
  /** Instances that get a Migration now. */
  make: readonly ObjectKey[];
  /** Migrations that are taken back. */
  withdraw: readonly ObjectKey[];
  /** When time alone changes the plan, ms from now. */
  recheckMs: number | undefined;
}

/** After these a new round begins: what was cancelled, taken back or failed in the one before is tried again. */
const GATES: ReadonlySet<string> = new Set(["Paused", "Manual", "WindowClosed", "UpdateFailed", "Superseded"]);
/** Instances named in a message at most. */
const NAMED = 3;

interface Gate {
  reason: string;
  message: string;
}

function gateOf({ rollout, settings, now }: RolloutFacts): Gate | undefined {
  if (rollout.spec.paused === true)
    return { reason: "Paused", message: "it is paused; kubectl patch its spec.paused to false to go on" };
  if (settings.mode === "Manual")
    return {
      reason: "Manual",
      message: "runtimeUpdate.mode is Manual: instances are updated by Migrations with mode: InPlace that people make",
    };
  const { window } = settings;
  if (window === undefined || windowAt(window, now).open) return undefined;
  return { reason: "WindowClosed", message: `updates begin between ${clockText(window.start)} and ${clockText(window.end)} UTC` };
}

interface Look {
  ready: ObjectKey[];
  failed: { instance: ObjectKey; why: string } | undefined;
  /** Some may be updated once something else is over. */
  waits: boolean;
  left: { instance: ObjectKey; why: string }[];
}

/** Chooses up to `most` instances, as many of each node as it has slots left; looks no further than it must. */
function look({ nodes, active, settings }: RolloutFacts, since: string, most: number): Look {
  const found: Look = { ready: [], failed: undefined, waits: false, left: [] };
  for (const node of nodes) {
    if (found.ready.length >= most) return found;
    let slots = settings.perNode - active.filter((one) => one.node === node.name).length;
    for (const one of node.outdated(since)) {
      if (one.state === "failed") found.failed ??= one;
      if (one.state === "left") found.left.push(one);
      if (one.state === "busy") found.waits = true;
      if (one.state !== "ready") continue;
      if (slots <= 0 || !node.answers) {
        found.waits = true;
        break;
      }
      found.ready.push(one.instance);
      slots -= 1;
      if (found.ready.length >= most) return found;
    }
  }
  return found;
}

const text = ({ namespace = "", name }: ObjectKey): string => `${namespace}/${name}`;

const howFar = ({ updated, total, nodes, allNodes }: RolloutFacts): string => {
  const where = nodes.length === allNodes ? "" : `; ${nodes.length} of ${allNodes} nodes have it`;
  return `${updated} of ${total} instances run in it${where}`;
};

const others = (count: number): string => (count > NAMED ? ` and ${count - NAMED} more` : "");

function leftText(left: Look["left"]): string {
  if (left.length === 0) return "";
  const named = left.slice(0, NAMED).map(({ instance, why }) => `${text(instance)} (${why})`);
  return `; left as they are: ${named.join("; ")}${others(left.length)}`;
}

/** The next step of a roll-out. Level-triggered: it may be asked as often as one likes. */
export function planRollout(facts: RolloutFacts): RolloutPlan {
  const { rollout, version, settings, active, now } = facts;
  const { spec, status = {} } = rollout;
  const gate = gateOf(facts);
  const resumed = spec.resumedAt !== undefined && spec.resumedAt !== status.resumedAt;
  // What failed before it went on again counts no more, also when it went on after something else.
  const since = resumed ? new Date(now).toISOString() : status.since;
  const sinceMs = Date.parse(since ?? rollout.metadata.creationTimestamp);
  const failed = facts.failed.filter(({ endedAt }) => Date.parse(endedAt) > sinceMs);
  const waitsForTime = settings.mode === "Auto" && spec.paused !== true;
  const plan = (phase: RolloutPlan["phase"], why: Gate, more: Partial<RolloutPlan> = {}): RolloutPlan => ({
    phase,
    ...why,
    failed: failed.length,
    since,
    resumedAt: spec.resumedAt,
    make: [],
    withdraw: [],
    recheckMs: waitsForTime ? windowAt(settings.window, now).changesInMs : undefined,
    ...more,
  });
  const takenBack = active.filter(({ begun }) => !begun).map(({ key }) => key);

  if (version === undefined) return superseded(facts, plan, takenBack);
  if (facts.updated === facts.total && active.length === 0)
    return plan("Complete", { reason: "AllUpdated", message: howFar(facts) }, { failed: 0 });
  const stop = (message: string): RolloutPlan => {
    const how = `look at it, then go on: kubectl patch drollout ${rollout.metadata.name} --type=merge -p '{"spec":{"resumedAt":"${new Date(now).toISOString().slice(0, 19)}Z"}}'`;
    // Said once, and kept: its time is that of the failure.
    const said = isStopped && status.message !== undefined ? status.message : `${message}; ${how}`;
    return plan(
      "Stopped",
      { reason: "UpdateFailed", message: said },
      { failed: Math.max(1, failed.length), withdraw: takenBack },
    );
  };
  const isStopped = !resumed && status.phase === "Stopped" && status.reason === "UpdateFailed";
  const [first] = failed;
  if (first !== undefined) return stop(`the update of ${first.instance} failed: ${first.message} (Migration ${first.migration})`);
  if (isStopped) return stop(status.message ?? "an update failed");

  const round = since === undefined || GATES.has(status.reason ?? "") ? new Date(now).toISOString() : since;
  const free = Math.max(0, settings.perCluster - active.length);
  const found = gate === undefined && free === 0 ? undefined : look(facts, round, gate === undefined ? free : 1);
  if (found?.failed !== undefined) return stop(`the update of ${text(found.failed.instance)} failed: ${found.failed.why}`);
  if (found !== undefined && found.ready.length === 0 && active.length === 0 && !found.waits)
    return plan("Complete", { reason: "NothingLeft", message: `${howFar(facts)}${leftText(found.left)}` });
  if (gate !== undefined)
    return plan("Waiting", { ...gate, message: `${gate.message}; ${howFar(facts)}` }, { withdraw: takenBack });
  const make = found?.ready ?? [];
  if (make.length === 0 && active.length === 0) {
    const message = `${howFar(facts)}; those that are left are moved, drained or stopped just now, or their nodes do not answer`;
    return plan("Waiting", { reason: "Held", message });
  }
  const count = make.length + active.length;
  return plan(
    "Rolling",
    { reason: "Updating", message: `${howFar(facts)}; ${count} ${count === 1 ? "is" : "are"} being updated` },
    { make, since: round },
  );
}

/** A newer one has taken its place on every node. */
function superseded(
  { rollout }: RolloutFacts,
  plan: (phase: RolloutPlan["phase"], why: Gate, more?: Partial<RolloutPlan>) => RolloutPlan,
  withdraw: readonly ObjectKey[],
): RolloutPlan {
  const { phase, reason = "AllUpdated", message = "" } = rollout.status ?? {};
  if (phase === "Complete") return plan("Complete", { reason, message }, { withdraw, recheckMs: undefined });
  const words = "it is current on no node any more; another one has taken its place";
  return plan("Stopped", { reason: "Superseded", message: words }, { withdraw, recheckMs: undefined });
}
