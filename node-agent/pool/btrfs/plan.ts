/** Decides what is to be done to a loop-backed pool. Pure. */
import { defaultPoolSize, formatSize, nodeReserve, wholeSectors } from "../size.ts";
import type { PoolStep, Refusal } from "../steps.ts";

/** What is on the node of a loop-backed pool. */
export interface PoolSeen {
  /** The backing file; null: none. `ours`: it holds the file system that this agent makes for a pool of this name. */
  file: { sizeBytes: number; ours: boolean; fileSystemBytes: number } | null;
  /** A file that was being made when the agent ended. */
  leftover: boolean;
  /** What the node remembers: nothing, the file system that is in the file, or another one. */
  noted: "nothing" | "same" | "other";
  loop: { device: string; sizeBytes: number; autoclear: boolean } | null;
  /** What is mounted at the pool's place; `visible`: the agent's own pod sees it too. */
  mount: { device: string; visible: boolean; readOnly: boolean } | null;
  directories: boolean;
  /** Of the node's file system that the file lies on. */
  room: { sizeBytes: number; freeBytes: number };
}

export interface PoolWant {
  name: string;
  /** Undefined: the default for a new pool, whatever it has for one that exists. */
  sizeBytes: number | undefined;
  /** Where the backing file is, for messages. */
  file: string;
}

// A file system ends up to this much before its device without being worth growing.
const SLACK = 1024 ** 2;

/** Steps that turn what is into what should be; empty when nothing is to be done. Pure: no clock, no I/O. */
export function planPool(seen: PoolSeen, want: PoolWant): PoolStep[] {
  const gone = lost(seen, want);
  if (gone) return [gone];
  const clean: PoolStep[] = seen.leftover ? [{ step: "discard-leftover" }] : [];
  return [...clean, ...(seen.file ? keep(seen, seen.file, want) : make(seen, want))];
}

/** Takes an emptied pool down. What is not the pool's own, a file or a mount in its place, is left alone. */
export function planPoolRemoval(seen: PoolSeen): PoolStep[] {
  const ourMount = seen.mount !== null && (seen.file === null || seen.mount.device === seen.loop?.device);
  const ourFile = seen.file?.ours === true && seen.noted !== "other";
  const steps: PoolStep[] = [];
  if (ourMount) steps.push({ step: "unmount" });
  if (ourMount || (ourFile && seen.loop)) steps.push({ step: "detach" });
  if (ourMount || ourFile || seen.leftover || seen.noted !== "nothing") steps.push({ step: "delete" });
  return steps;
}

function make(seen: PoolSeen, want: PoolWant): PoolStep[] {
  const size = wholeSectors(want.sizeBytes ?? defaultPoolSize(seen.room.sizeBytes));
  const short = tooLittleRoom(seen, want, size, size);
  if (short) return [short];
  return [
    { step: "create-file", sizeBytes: size },
    { step: "make-filesystem" },
    { step: "publish-file" },
    { step: "note" },
    { step: "attach" },
    { step: "mount" },
    { step: "autoclear" },
    { step: "make-directories" },
  ];
}

function keep(seen: PoolSeen, file: NonNullable<PoolSeen["file"]>, want: PoolWant): PoolStep[] {
  const steps: PoolStep[] = [];
  const refusals: PoolStep[] = [];
  const wanted = want.sizeBytes === undefined ? file.sizeBytes : wholeSectors(want.sizeBytes);
  let size = file.sizeBytes;
  if (seen.noted === "nothing") steps.push({ step: "note" });
  if (wanted > file.sizeBytes) {
    const short = tooLittleRoom(seen, want, wanted, wanted - file.sizeBytes);
    if (short) refusals.push({ ...short, usable: true });
    else {
      steps.push({ step: "extend-file", fromBytes: file.sizeBytes, toBytes: wanted });
      size = wanted;
    }
  } else if (wanted < file.sizeBytes) {
    const change = `${formatSize(file.sizeBytes)} -> ${formatSize(wanted)}`;
    const message = `a pool cannot shrink (${change}); make a new pool and migrate to it`;
    refusals.push({ step: "refuse", reason: "ShrinkRefused", message, usable: true });
  }
  if (!seen.loop) steps.push({ step: "attach" });
  else if (seen.loop.sizeBytes < size) steps.push({ step: "refresh-loop" });
  if (!seen.mount) steps.push({ step: "mount" });
  if (!seen.mount || !seen.loop?.autoclear) steps.push({ step: "autoclear" });
  if (size - file.fileSystemBytes >= SLACK) steps.push({ step: "grow-filesystem" });
  if (!seen.mount || !seen.directories) steps.push({ step: "make-directories" });
  return [...steps, ...refusals];
}

/** What no step can mend: the pool's bytes are not where they were, or are not the pool's. */
function lost(seen: PoolSeen, want: PoolWant): Refusal | undefined {
  const refuse = (reason: string, message: string): Refusal => ({ step: "refuse", reason, message });
  const again = `put it back, or delete the instances that had disks in it and the pool, and make them again`;
  if (seen.mount && !seen.file) {
    const now = `${want.file}, the file of pool ${want.name}, was deleted while the pool is mounted`;
    return refuse(
      "PoolGone",
      `${now}: its disks end with the next restart of the node; copy them away, then delete and make again`,
    );
  }
  if (!seen.file) {
    return seen.noted === "nothing"
      ? undefined
      : refuse("PoolGone", `${want.file}, the file of pool ${want.name}, is gone: ${again}`);
  }
  if (!seen.file.ours) {
    const what = `${want.file} exists and does not hold the file system of pool ${want.name}`;
    return refuse("ForeignData", `${what}; nothing was changed in it: move it away, or use another name for the pool`);
  }
  if (seen.noted === "other") {
    return refuse(
      "PoolGone",
      `${want.file} holds another file system than the one that pool ${want.name} had on this node: ${again}`,
    );
  }
  if (!seen.mount) return undefined;
  if (seen.mount.device !== seen.loop?.device) {
    return refuse("ForeignData", `${seen.mount.device} is mounted where pool ${want.name} belongs; unmount it`);
  }
  if (!seen.mount.visible) {
    const how = "its volume for Drover's directory must be mounted with mountPropagation: Bidirectional";
    return refuse("PoolNotVisible", `pool ${want.name} is mounted on the node but not seen in the agent's pod; ${how}`);
  }
  if (seen.mount.readOnly) {
    const how = "the node's kernel log tells why; stop its instances, unmount it, and it is mounted again";
    return refuse("PoolReadOnly", `the file system of pool ${want.name} became read-only after an error; ${how}`);
  }
  return undefined;
}

function tooLittleRoom(seen: PoolSeen, want: PoolWant, size: number, needed: number): Refusal | undefined {
  const reserve = nodeReserve(seen.room.sizeBytes);
  if (needed + reserve <= seen.room.freeBytes) return undefined;
  const have = `${formatSize(seen.room.freeBytes)} is free on the file system of ${want.file}`;
  const need = `a size of ${formatSize(size)} needs ${formatSize(needed)} there and ${formatSize(reserve)} left over for the node`;
  const largest = Math.floor((seen.room.freeBytes - reserve + (size - needed)) / 1024 ** 2);
  const mend = largest >= 256 ? `free space, or ask for at most ${largest}Mi in source.loop.size` : "free space on the node";
  return { step: "refuse", reason: "NotEnoughSpace", message: `${have}, but ${need}; ${mend}` };
}
