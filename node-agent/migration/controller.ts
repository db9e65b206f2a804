/** Which sides of which moves live on this node: begins them, tells them what is new, and lets the next agent find them. */
import type { Handover, Migration } from "../../crds/migration.ts";
import { instances, migrations } from "../../crds/resources.ts";
import { keyText, type Informer, type KubeClient, type ObjectKey, type Requeue } from "../../kube/index.ts";
import { errorText } from "../errors.ts";
import type { Reception } from "./channel/server.ts";
import type { MoveNote, Role } from "./notes.ts";
import { refOf, type SideParts } from "./parts.ts";
import { SourceMove, type SourceParts } from "./source/source.ts";
import { TargetMove, type TargetParts } from "./target/target.ts";
import { goesOf } from "./local/goes.ts";
import { UpdateMove, type UpdateParts } from "./in-place/update.ts";
import { LocalMove, type LocalParts } from "./local/local.ts";
import { planSide, verdictOfVanished } from "./plan.ts";

export interface MovesParts extends SideParts {
  nodeName: string;
  client: SideParts["client"] & Pick<KubeClient, "get">;
  /** Moves disks of instances that do not run. */
  cold: SideParts["moves"];
  /** Migrations that leave this node, and those that come. */
  leaving: Pick<Informer<Migration>, "get" | "list">;
  coming: Pick<Informer<Migration>, "get" | "list">;
  source: Pick<SourceParts, "destroy" | "livesHere"> & { nicsOf: (instance: ObjectKey) => string[] };
  target: Pick<TargetParts, "endpoint" | "prepare" | "destroy" | "missing" | "claimTrouble">;
  /** Disks that go to another pool of this node: of guests that run, and of instances that do not. */
  local: Record<"live" | "cold", LocalParts["disks"]> & Pick<LocalParts, "hostFacts" | "paths" | "isTold">;
  /** Other QEMUs under guests of this node. */
  update: Pick<UpdateParts, "updates" | "runtimeFacts" | "maxPauseMs">;
  /** A move of this instance, or what it lets others do, has changed. */
  onHold: (instance: ObjectKey) => void;
}

/** What an instance's ordinary controller must leave alone: taps: all but its taps; all: everything. */
export type Hold = "taps" | "all";

type Move = SourceMove | TargetMove | LocalMove | UpdateMove;

/** The API could not be asked, or its answer decides nothing. */
const RETRY_MS = 5_000;

export class MoveController {
  readonly #parts: MovesParts;
  readonly #enqueue: (key: ObjectKey) => void;
  /** By the instance's uid. */
  readonly #moves = new Map<string, { move: Move; ended: Promise<void> }>();
  readonly #stop = new AbortController();

  constructor(parts: MovesParts, enqueue: (key: ObjectKey) => void) {
    this.#parts = parts;
    this.#enqueue = enqueue;
  }

  /** Reads the notes; to be awaited before anything else is done to guests. */
  async load(): Promise<void> {
    await this.#parts.notes.load();
  }

  /** Looks at all that is noted, also where the API has nothing of it any more. */
  takeUp(): void {
    for (const { migration } of this.#parts.notes.list()) this.#enqueue(keyOfNote(migration));
  }

  /** Lets go of all moves: they go on, and the next agent takes them up. */
  async close(): Promise<void> {
    this.#stop.abort();
    await Promise.all([...this.#moves.values()].map(({ ended }) => ended));
  }

  /** What others must leave alone of an instance. */
  hold(instanceUid: string): Hold | undefined {
    const note = this.#parts.notes.get(instanceUid);
    if (note === undefined) return undefined;
    if (note.cold === true && note.role !== "target") return "all";
    const move = this.#moves.get(instanceUid)?.move;
    if (note.role === "update") return move instanceof UpdateMove && !move.switching ? "taps" : "all";
    if (note.role === "local") return move instanceof LocalMove && !move.switching ? "taps" : "all";
    if (note.role === "source") return move instanceof SourceMove && !move.switching && note.mark === "none" ? "taps" : "all";
    return move instanceof TargetMove && move.arrived ? undefined : "all";
  }

  /** What of the node belongs to moves, for whoever looks for what belongs to nobody. */
  belongings(): { instanceUid: string; nics: readonly string[] }[] {
    return this.#parts.notes.list().map(({ instance, nics }) => ({ instanceUid: instance.uid, nics }));
  }

  notes(): MoveNote[] {
    return this.#parts.notes.list();
  }

  /** Who waits for this call of a source's agent. */
  reception(migrationUid: string, attempt: number): Reception | undefined {
    for (const { move } of this.#moves.values()) {
      if (!(move instanceof TargetMove) || move.note.migration.uid !== migrationUid || move.note.attempt !== attempt) continue;
      const { migration } = move;
      const sourceNode = migration.status?.sourceNode;
      return sourceNode === undefined ? undefined : { sourceNode, take: (link) => move.take(link) };
    }
    return undefined;
  }

  /** An instance, or a NIC of it, changed: a move of it may have waited for that. */
  instanceChanged(instanceUid: string): void {
    this.#moves.get(instanceUid)?.move.news(undefined);
  }

  /** Claims changed: what comes here may have lost its place. */
  claimsChanged(): void {
    for (const { move } of this.#moves.values()) if (move instanceof TargetMove) move.news(undefined);
  }

  async reconcile(key: ObjectKey): Promise<Requeue | void> {
    if (this.#stop.signal.aborted) return;
    const { leaving, coming, notes } = this.#parts;
    const migration = leaving.get(key) ?? coming.get(key);
    const own = notes.list().filter((one) => keyText(keyOfNote(one.migration)) === keyText(key));
    if (migration === undefined && own.length === 0) {
      this.#parts.reporter.release(key);
      this.#parts.records.forget(key);
    }
    let retry = false;
    for (const note of own) {
      retry = !(await this.#follow(note, migration)) || retry;
    }
    if (migration !== undefined) await this.#beginOrAnswer(migration);
    if (retry) return { afterMs: RETRY_MS };
  }

  /** Tells a move what is new. False: nothing could be found out. */
  async #follow(note: MoveNote, cached: Migration | undefined): Promise<boolean> {
    const { nodeName, log } = this.#parts;
    const same = cached?.metadata.uid === note.migration.uid ? cached : undefined;
    const node = note.role === "target" ? same?.status?.targetNode : same?.status?.sourceNode;
    if (same !== undefined && node === nodeName) {
      this.#begin(note, same).news(same);
      return true;
    }
    // Gone from the cache, or somebody else's by now: the API server itself must say so.
    try {
      const { migration, record } = await this.#truth(note);
      if (migration === undefined && record === undefined) return false;
      const move = this.#begin(note, migration ?? withoutObject(note));
      move.news(migration, record);
      return true;
    } catch (error) {
      log.warn({ migration: note.migration.name, error: errorText(error) }, "the API server cannot be asked about a move");
      return false;
    }
  }

  async #truth(note: MoveNote): Promise<{ migration?: Migration; record?: Handover }> {
    const { client, nodeName, log } = this.#parts;
    const migration = await client.get(migrations, keyOfNote(note.migration));
    if (migration !== undefined && migration.metadata.uid === note.migration.uid) return { migration };
    const { uid, ...key } = note.instance;
    const instance = await client.get(instances, key);
    const verdict = verdictOfVanished(note, instance?.metadata.uid === uid ? instance : undefined, nodeName);
    log.warn({ migration: note.migration.name, instance: key.name, verdict }, "a move's object is gone from the API");
    return verdict === undefined ? {} : { record: { attempt: note.attempt, state: verdict } };
  }

  async #beginOrAnswer(migration: Migration): Promise<void> {
    const { nodeName, notes, reporter, records } = this.#parts;
    const note = notes.get(migration.status?.instanceUid ?? "");
    const handover = records.put(refOf(migration), migration.status?.handover);
    const now = handover === undefined ? migration : { ...migration, status: { ...migration.status, handover } };
    const plan = planSide(now, nodeName, note);
    if (plan.do === "begin") await this.#beginNew(migration, plan.role, plan.attempt);
    if (plan.do !== "say") return;
    const { role, words } = plan.said;
    const last = reporter.last(refOf(migration), role)?.words;
    // The cache may not have what was said a moment ago, reason and all.
    if (last?.attempt !== words.attempt || last.state !== words.state) reporter.say(refOf(migration), plan.said);
  }

  /** Noted first, so that whatever is done next can be undone by whoever comes next. */
  async #beginNew(migration: Migration, role: Role, attempt: number): Promise<void> {
    const { notes, clock, log } = this.#parts;
    const { namespace = "", name, uid } = migration.metadata;
    const instanceUid = migration.status?.instanceUid ?? "";
    const goes = role === "local" ? goesOf(migration) : undefined;
    const runtime = role === "update" ? migration.status?.runtime?.to.version : undefined;
    const note: MoveNote = {
      ...(goes === undefined ? {} : { goes }),
      ...(runtime === undefined ? {} : { runtime }),
      migration: { namespace, name, uid },
      instance: { namespace, name: migration.spec.instance, uid: instanceUid },
      attempt,
      role,
      ...(migration.spec.mode === "Cold" ? { cold: true } : {}),
      mark: "none",
      since: clock.now(),
      // The source's own are those of its Instance; a target notes what it makes.
      nics: role !== "target" ? this.#parts.source.nicsOf(keyOfNote({ namespace, name: migration.spec.instance })) : [],
    };
    try {
      await notes.write(note);
      this.#begin(note, migration);
      this.#parts.onHold(keyOfNote(note.instance));
    } catch (error) {
      log.error({ migration: name, error: errorText(error) }, "a move could not be noted, so it is not begun yet");
      this.#parts.clock.setTimeout(() => this.#enqueue(keyOfNote(note.migration)), RETRY_MS);
    }
  }

  #begin(note: MoveNote, migration: Migration): Move {
    const { source, target, local, update, log, onHold } = this.#parts;
    const moves = note.cold === true ? this.#parts.cold : this.#parts.moves;
    const instanceUid = note.instance.uid;
    const running = this.#moves.get(instanceUid);
    if (running !== undefined) return running.move;
    const common = { ...this.#parts, moves };
    const make: Record<Role, () => Move> = {
      source: () => new SourceMove({ ...common, ...source }, note, migration),
      target: () => new TargetMove({ ...common, ...target }, note, migration),
      local: () => new LocalMove({ ...common, ...local, disks: note.cold === true ? local.cold : local.live }, note, migration),
      update: () => new UpdateMove({ ...common, ...update }, note, migration),
    };
    const move = make[note.role]();
    const about = { migration: note.migration.name, instance: note.instance.name, attempt: note.attempt, side: note.role };
    log.info(about, "a move is taken up");
    const ended = move
      .run(this.#stop.signal)
      .catch((error: unknown) => log.error({ ...about, err: error }, "a side of a move failed; it is taken up again"))
      .then(() => {
        this.#moves.delete(instanceUid);
        if (this.#stop.signal.aborted) return;
        onHold(keyOfNote(note.instance));
        this.#parts.clock.setTimeout(() => this.#wakeAll(instanceUid, note.migration), 0);
      });
    this.#moves.set(instanceUid, { move, ended });
    return move;
  }

  /** This one's key, and those that waited for it. */
  #wakeAll(instanceUid: string, migration: ObjectKey): void {
    this.#enqueue(keyOfNote(migration));
    for (const one of [...this.#parts.leaving.list(), ...this.#parts.coming.list()]) {
      if (one.status?.instanceUid === instanceUid) this.#enqueue(keyOfNote(refOf(one)));
    }
  }
}

const keyOfNote = ({ namespace, name }: ObjectKey): ObjectKey => (namespace === undefined ? { name } : { namespace, name });

/** Stands for a Migration that is gone: nothing is known of it but what was noted. */
const withoutObject = ({ migration, instance, cold, role }: MoveNote): Migration => ({
  apiVersion: "drover.dev/v1alpha1",
  kind: "Migration",
  metadata: { ...migration, resourceVersion: "", generation: 0, creationTimestamp: "" },
  spec: { instance: instance.name, mode: cold === true ? "Cold" : role === "update" ? "InPlace" : "Live" },
});
