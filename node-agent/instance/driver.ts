/** What an instance is made of, whatever makes it. Nobody outside the driver's folder knows a flag of QEMU. */
import type { GuestIdentity } from "../types.ts";
import type { Offer } from "./move.ts";

export interface MachineDisk {
  /** Stable name within the instance, such as `root`. */
  id: string;
  pool: string;
  /** The raw file on the node: `<pool>/volumes/<instance uid>/<disk>.raw`. */
  path: string;
  /** Whether its file system can do O_DIRECT; the start finds out and falls back where this is left out. */
  direct?: boolean;
}

export interface MachineNic {
  /** Name of the NIC within the instance. */
  id: string;
  tap: string;
  mac: string;
  mtu: number;
}

/** All that a start needs. Plain data: the same plan gives the same machine on any node. */
export interface MachinePlan {
  instanceUid: string;
  namespace: string;
  name: string;
  /** The claim pod in whose cgroup it runs. */
  claimUid: string;
  identity: GuestIdentity;
  cpus: number;
  memoryBytes: number;
  disks: MachineDisk[];
  nics: MachineNic[];
  /** Versioned, such as pc-q35-10.0. */
  machineType: string;
  cpuModel: string;
  accelerator: "KVM" | "TCG";
  runtimeVersion: string;
}

/**
 * Why a guest is not running any more.
 * GuestShutdown: it shut itself down. GuestPanicked: its kernel said so. MemoryLimit: the kernel killed it at the limit of
 * its claim. Stopped: it was asked to. Killed: by a signal of someone else. Crashed: QEMU ended with an error.
 * NodeRestarted: the node went down under it. ClaimGone: its claim pod was taken away, and its processes with it.
 * Unknown: nobody watched and nothing is left that tells.
 */
export type ExitReason =
  | "GuestShutdown"
  | "GuestPanicked"
  | "MemoryLimit"
  | "Stopped"
  | "Killed"
  | "Crashed"
  | "NodeRestarted"
  | "ClaimGone"
  | "Unknown";

export interface GuestExit {
  reason: ExitReason;
  message: string;
  /** When it was seen, RFC 3339. */
  at: string;
}

/** What the agent keeps of an instance on the node, readable by root only; survives everything but `forget`. */
export interface InstanceNote {
  instanceUid: string;
  namespace: string;
  name: string;
  identity: GuestIdentity;
  /** Of the last start; absent before the first. Machine type, CPU model and runtime are kept for the life of the guest. */
  run?: {
    claimUid: string;
    machineType: string;
    cpuModel: string;
    accelerator: "KVM" | "TCG";
    runtimeVersion: string;
    qemuVersion?: string;
    /** Unset until QEMU's process exists. */
    pid?: number;
    /** Start time of that process in ticks since boot: with the pid it names one process for ever. */
    pidStart?: string;
    /** The boot of the node that it runs in. */
    bootId: string;
    startedAt: string;
    /** Kills by the memory limit counted in its cgroup before the start. */
    oomKillsBefore: number;
    /** Set before the agent asks it to end, so that its end is not taken for a crash. */
    stopAskedAt?: string;
    exit?: GuestExit;
    /** A process that is to take the guest over in place. */
    next?: {
      runtimeVersion: string;
      qemuVersion?: string;
      /** Unset until it exists. */
      pid?: number;
      pidStart?: string;
      startedAt: string;
      /** It was given the guest's memory, or nearly: it can take over now or never. */
      served?: true;
    };
    /** The process that this one took the guest over from, until it is gone. */
    previous?: { pid: number; pidStart: string; runtimeVersion: string };
    /** It was started to receive the guest from another node. */
    incoming?: {
      /** Where it listens; unset until it does. */
      offer?: Offer;
      /** The guest has run here: from then on an ordinary run. */
      resumed?: true;
    };
  };
}

export interface Observed {
  /**
   * absent: never started here, or forgotten. starting: the process exists but does not answer yet.
   * paused: it exists and its CPUs do not run (also while it waits for a guest that moves here: runState `inmigrate`).
   * exited: it ran and is gone. A QEMU that waited for a guest in vain never ran: absent.
   */
  state: "absent" | "starting" | "running" | "paused" | "exited";
  pid?: number;
  claimUid?: string;
  note?: InstanceNote;
  exit?: GuestExit;
  /** QEMU's word for its state, such as `running`, `io-error`; `not-answering` when its monitor is silent. */
  runState?: string;
  /** Whether something in the guest has the guest agent's port open; `pingGuestAgent` tells whether it answers. */
  guestAgentOpen?: boolean;
  /** Of a guest that runs: why it cannot be moved while it does, in QEMU's words, which name the device; empty: it can. */
  blockers?: string[];
  /** Of a guest that runs: why it cannot get another QEMU in place; empty: it can. */
  updateBlockers?: string[];
}

export interface StopMode {
  /** clean: guest agent, then the power button, then as force. force: QEMU ends at once. */
  mode: "clean" | "force";
  /** How long the guest may take for a clean stop, in ms. */
  deadlineMs: number;
}

/** Every method may be repeated. Reads come from processes, cgroups and QMP, never from memory. */
export interface InstanceDriver {
  /** Makes the instance's directory and gives it a uid and gid of its own on this node; the same ones when repeated. */
  prepare(instance: { instanceUid: string; namespace: string; name: string }): Promise<GuestIdentity>;
  observe(instanceUid: string): Promise<Observed>;
  /** Resolves when the CPUs run. A guest that runs already is left as it is. Throws UserError with QEMU's words. */
  start(plan: MachinePlan, signal: AbortSignal): Promise<{ pid: number }>;
  /** Resolves when the process is gone. */
  stop(instanceUid: string, how: StopMode, signal: AbortSignal): Promise<void>;
  /** Whether the guest agent answers within the deadline (ms). */
  pingGuestAgent(instanceUid: string, deadlineMs: number): Promise<boolean>;
  /** Last bytes of the guest's serial console. */
  consoleTail(instanceUid: string, bytes: number): Promise<string>;
  /** Removes what is left of it on the node: directory, cgroup. Refuses while its process lives. */
  forget(instanceUid: string): Promise<void>;
  /** Uids of the instances that have a note on this node. */
  list(): Promise<string[]>;
  /** Calls back after anything that `observe` would tell differently: run state, exit, kill by the memory limit. */
  watch(instanceUid: string, onChange: () => void): () => void;
}
