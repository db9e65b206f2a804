/** What an instance's processes need beside its RAM. */
import { MIB } from "../../crds/quantity.ts";

/**
 * Measured under TCG on Debian 13's QEMU 10.0 (1 vCPU, 1 disk, 1 NIC): at most 106 MiB were ever charged beside guest RAM, 68-74 with a
 * translation buffer of 32 MiB; page tables cost 2 MiB per GiB touched. The figures below leave room above that; the bench measures
 * them again (vmOverheadMb). KVM needs no translation buffer, but where a claim will land is not known when it is made.
 *
 * A move takes more at the end that sends: the buffers of the disks' mirrors, of the streams and of their encryption. Of some hundred
 * moves nearly all stayed below 75 MiB, but one, of a guest that wrote to its disk while others left the same node, took 129 MiB and
 * was ended by the kernel for it. No guest may die of being moved.
 *
 * Measured again with disks that are written to without end, encrypted, anonymous memory at its peak: 54 MiB before the move; at the end
 * that sends 88 with two disks and 121 with four, at the end that receives 33. So a mirror takes its buffer of 16 MiB for each disk, and
 * eight disks stay below 200, for which 248 are reserved. MALLOC_ARENA_MAX=1 made no difference (87, 120);
 * buffers of 4 MiB (buf-size) made 73 of the 121, at what cost to the copying is not known.
 *
 * A new QEMU in place takes the same room, for a second or two and never during a move: the second process, without the guest's RAM, which
 * both share (29 MiB at its peak; its agent asks for 64).
 */
const OVERHEAD = {
  base: 96 * MIB,
  /** QEMU's `-accel tcg,tb-size=32`. */
  translationBuffer: 32 * MIB,
  /** What a move takes of the side that sends, at worst. */
  move: 64 * MIB,
  /** Page tables and QEMU's own notes on RAM: 4 MiB per GiB. */
  perRam: 1 / 256,
  /** Each vCPU, disk or NIC after the first. */
  perDevice: 8 * MIB,
};

export interface MachineSize {
  ramBytes: number;
  cpus: number;
  disks: number;
  nics: number;
}

/** Bytes to reserve beside RAM; whole. */
export function overheadBytes({ ramBytes, cpus, disks, nics }: MachineSize): number {
  const further = [cpus, disks, nics].reduce((sum, count) => sum + Math.max(0, count - 1), 0);
  return Math.ceil(
    OVERHEAD.base + OVERHEAD.translationBuffer + OVERHEAD.move + ramBytes * OVERHEAD.perRam + further * OVERHEAD.perDevice,
  );
}
