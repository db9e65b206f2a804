/** What a move calls its things in QEMU, so that whoever comes next finds them; and its figures. */

/** Everything that a move makes in QEMU begins with this. */
const PREFIX = "move-";

/** TLS credentials, at both ends. */
export const TLS = `${PREFIX}tls`;

/** Job, target node and export of a disk: three name spaces, one name. */
export const nameOf = (disk: string): string => `${PREFIX}${disk}`;

/** The disk of a name of ours; undefined: not one of ours. */
export const diskOf = (name: string): string | undefined => (name.startsWith(PREFIX) ? name.slice(PREFIX.length) : undefined);

/** Node of a disk as a new QEMU has it; see the command line. */
export const deviceNode = (disk: string): string => `disk-${disk}`;

/** Deadlines in ms. */
export const MOVE_DEADLINE = {
  /** From `migrate` until both QEMUs talk: connecting, TLS. */
  connect: 10_000,
  /** From the end of the guest's CPUs until the move is complete. */
  switchover: 30_000,
  /** How long the target may lag behind the source's `complete`. */
  complete: 5_000,
  /** For an export to be gone: the guest may stand still for as long. */
  closeInPause: 1_000,
  /** For breaking connections; answered beside the main loop, so even a stuck QEMU is quick. */
  yank: 2_000,
  /** For each step of giving up. */
  giveUp: 5_000,
  /** For connecting to the monitor that is kept for breaking connections. */
  monitor: 1_000,
} as const;

/** Rate that limits nothing. */
export const UNLIMITED = 2 ** 50;

/**
 * Below this many bytes QEMU looks for newly written pages again. It is the product of two parameters of QEMU, which together
 * make it independent of the link's measured speed.
 */
export const ROUND_PARAMETERS = { "avail-switchover-bandwidth": 256 * 2 ** 20, "downtime-limit": 1 } as const;

/** The rate, in bytes per second, at which QEMU makes one round each 100 ms and no more. */
export const PACE = 10;
