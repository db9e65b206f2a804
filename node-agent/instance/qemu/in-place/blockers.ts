/** Why a guest's QEMU cannot be replaced in place. Pure. */

/** As of this version QEMU hands a guest over to another process (mode cpr-transfer). */
const LEAST = 10;

export interface UpdateFacts {
  /** Of the QEMU that runs. */
  qemuVersion: string | undefined;
  /** Its command line. */
  args: readonly string[];
  /** What it says that keeps the guest from being moved. */
  blockers: readonly string[];
}

export function updateBlockers({ qemuVersion, args, blockers }: UpdateFacts): string[] {
  return [
    ...(canHandOver(qemuVersion) ? [] : [tooOld(qemuVersion)]),
    ...(args.some((arg) => /(^|,)(mq=on|queues=[2-9])/.test(arg)) ? ["a NIC has more than one queue"] : []),
    ...(args.some((arg) => arg.includes("aux-ram-share=on")) || args.length === 0
      ? []
      : ["its memory cannot be handed over to another process"]),
    ...blockers,
  ];
}

export const canHandOver = (version: string | undefined): boolean => Number((version ?? "").split(".")[0]) >= LEAST;

export const tooOld = (version: string | undefined): string =>
  `QEMU ${version ?? "of an unknown version"} cannot hand a guest over; ${LEAST}.0 and newer can`;
