/** Decides what is to be done to a pool in a directory of the node. Pure. */
import type { PoolStep } from "../steps.ts";

/** What lies in the directory to say whose pool it is. */
export interface DirMark {
  pool: string;
  /** The node that made it. */
  node: string;
  id: string;
  /** It is a pool that nodes share, and not that node's alone. */
  shared?: boolean | undefined;
}

/** What is on the node of a pool in a directory. */
export interface DirSeen {
  /** The directory with all symbolic links followed; null: there is none. */
  directory: { path: string; isDirectory: boolean; mark: DirMark | null; foreignEntries: string[] } | null;
  /** What the node remembers of it. */
  note: { id: string } | null;
  /** What is bound at the pool's place; `same`: this directory. */
  bind: { same: boolean; visible: boolean; readOnly: boolean } | null;
  directories: boolean;
  /** A shared directory knows that this node uses it. */
  joined: boolean;
}

export interface DirWant {
  name: string;
  node: string;
  shared: boolean;
  /** Id in the mark of the directory that nodes share, once one of them has made it. */
  directory?: string | undefined;
  /** As the user wrote it. */
  path: string;
  /** Drover's own directory on the node. */
  root: string;
}

/** With everything below them. */
const SYSTEM = [
  "bin",
  "boot",
  "dev",
  "etc",
  "lib",
  "lib32",
  "lib64",
  "libx32",
  "proc",
  "run",
  "sbin",
  "sys",
  "usr",
  "var/run",
].map((name) => `/${name}`);
const SERVICES = ["kubelet", "containerd", "containers", "docker", "etcd", "dpkg", "lxcfs"].map((name) => `/var/lib/${name}`);

/** Why a directory, its links followed, cannot be a pool; undefined: it can. */
export function forbiddenPath(path: string, root: string): string | undefined {
  const under = (parent: string): boolean => path === parent || path.startsWith(`${parent}/`);
  if (path === "/") return "is the root of the node's file system";
  const system = SYSTEM.find(under);
  if (system) return path === system ? "belongs to the node's system" : `lies in ${system}, which belongs to the node's system`;
  const service = [...SERVICES, "/etc/kubernetes"].find(under);
  if (service) return `lies in ${service}, which belongs to another service of the node`;
  if (under(root)) return `lies in ${root}, Drover's own directory`;
  const inside = [...SYSTEM, ...SERVICES, root].find((one) => one.startsWith(`${path}/`));
  return inside ? `holds ${inside}, which is not for disks` : undefined;
}

/** Steps that turn what is into what should be; empty when nothing is to be done. Pure: no clock, no I/O. */
export function planDirectory(seen: DirSeen, want: DirWant): PoolStep[] {
  const refused = unfit(seen, want);
  if (refused) return [{ step: "refuse", ...refused }];
  const steps: PoolStep[] = [];
  if (!seen.bind) steps.push({ step: "bind" });
  // Before the mark: from then on no other node takes the directory's content away.
  if (want.shared && !seen.joined) steps.push({ step: "join" });
  if (!seen.directory?.mark) steps.push({ step: "mark" });
  if (!seen.note) steps.push({ step: "note" });
  if (!seen.directories) steps.push({ step: "make-directories" });
  return steps;
}

/** Takes an emptied pool down; the user's directory stays, without what Drover made in it. */
export function planDirectoryRemoval(seen: Pick<DirSeen, "note" | "bind">): PoolStep[] {
  if (seen.bind) return [{ step: "delete" }, { step: "unmount" }];
  return seen.note ? [{ step: "delete" }] : [];
}

interface Refusal {
  reason: string;
  message: string;
}

function unfit(seen: DirSeen, want: DirWant): Refusal | undefined {
  const directory = seen.directory;
  if (!directory) {
    if (seen.note) {
      return {
        reason: "PoolGone",
        message: `${want.path}, the directory of pool ${want.name}, is gone; put it back, or mount its disk`,
      };
    }
    return {
      reason: "DirectoryMissing",
      message: `${want.path} does not exist on node ${want.node}; make the directory, or mount its disk`,
    };
  }
  const named = directory.path === want.path ? want.path : `${want.path} (which is ${directory.path})`;
  if (!directory.isDirectory) return { reason: "NotADirectory", message: `${named} on node ${want.node} is not a directory` };
  const forbidden = forbiddenPath(directory.path, want.root);
  if (forbidden)
    return { reason: "PathRefused", message: `${named} cannot be a pool: it ${forbidden}; give a directory of its own` };
  return taken(directory, seen.note, want) ?? (seen.bind ? misplaced(seen.bind, want) : undefined);
}

function taken(directory: NonNullable<DirSeen["directory"]>, note: DirSeen["note"], want: DirWant): Refusal | undefined {
  const { mark } = directory;
  if (mark && mark.pool !== want.name) {
    return {
      reason: "PathInUse",
      message: `${want.path} belongs to pool ${mark.pool}; give pool ${want.name} a directory of its own`,
    };
  }
  if (mark?.shared === true && !want.shared) {
    const message = `${want.path} belongs to a pool ${want.name} that nodes share (shared: true); give this one a directory of its own`;
    return { reason: "PathInUse", message };
  }
  if (mark && mark.shared !== true && (want.shared || mark.node !== want.node)) {
    const hint = "a directory that nodes share needs shared: true, and must be empty when its pool is made";
    return { reason: "PathInUse", message: `${want.path} belongs to pool ${want.name} of node ${mark.node}; ${hint}` };
  }
  if (want.shared && want.directory !== undefined && mark?.id !== want.directory) {
    const message = `${want.path} on node ${want.node} is not the directory that the other nodes of pool ${want.name} have; mount the same file system on every node`;
    return { reason: "PoolNotShared", message };
  }
  if (note && note.id !== mark?.id) {
    const message = `${want.path} is not the directory that pool ${want.name} had so far; mount its disk, or put the directory back`;
    return { reason: "PoolGone", message };
  }
  if (!mark && directory.foreignEntries.length > 0) {
    const message = `${want.path} holds ${directory.foreignEntries.join(" and ")} that are not Drover's; give an empty directory`;
    return { reason: "PathInUse", message };
  }
  return undefined;
}

function misplaced(bind: NonNullable<DirSeen["bind"]>, want: DirWant): Refusal | undefined {
  if (!bind.same) {
    return { reason: "ForeignData", message: `something else is mounted where pool ${want.name} belongs; unmount it` };
  }
  if (!bind.visible) {
    const how = "its volume for Drover's directory must be mounted with mountPropagation: Bidirectional";
    return {
      reason: "PoolNotVisible",
      message: `pool ${want.name} is mounted on the node but not seen in the agent's pod; ${how}`,
    };
  }
  if (bind.readOnly) {
    return { reason: "PoolReadOnly", message: `the file system of ${want.path} is read-only; mount it for writing` };
  }
  return undefined;
}
