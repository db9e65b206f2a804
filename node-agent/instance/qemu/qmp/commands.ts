/** One function per command of QEMU's that Drover uses; replies are checked, not believed. */
import { z } from "zod";
import type { QmpSession } from "./session.ts";

const status = z.object({ status: z.string(), running: z.boolean() });
const version = z.object({ qemu: z.object({ major: z.int(), minor: z.int(), micro: z.int() }) });
const chardevs = z.array(z.object({ label: z.string(), "frontend-open": z.boolean() }));
const machines = z.array(z.object({ name: z.string(), alias: z.string().optional(), deprecated: z.boolean().default(false) }));
const cpus = z.array(
  z.object({
    name: z.string(),
    "alias-of": z.string().optional(),
    "migration-safe": z.boolean().default(false),
    "unavailable-features": z.array(z.string()).optional(),
  }),
);

/** QEMU's run state, such as running, paused, shutdown, io-error, guest-panicked; words of later versions pass too. */
export const queryStatus = async (qmp: QmpSession): Promise<{ status: string; running: boolean }> =>
  status.parse(await qmp.execute("query-status"));

/** Version of QEMU as 10.0.13. */
export async function queryVersion(qmp: QmpSession): Promise<string> {
  const { qemu } = version.parse(await qmp.execute("query-version"));
  return `${qemu.major}.${qemu.minor}.${qemu.micro}`;
}

/** Whether something in the guest has the port behind this chardev open. */
export async function isPortOpen(qmp: QmpSession, chardev: string): Promise<boolean> {
  const all = chardevs.parse(await qmp.execute("query-chardev"));
  return all.some((one) => one.label === chardev && one["frontend-open"]);
}

export interface MachineType {
  name: string;
  alias?: string | undefined;
  deprecated: boolean;
}

/** All machine types of this QEMU. */
export const queryMachines = async (qmp: QmpSession): Promise<MachineType[]> =>
  machines.parse(await qmp.execute("query-machines"));

export interface CpuModel {
  name: string;
  migrationSafe: boolean;
  isAlias: boolean;
  /** What the accelerator lacks for this model; undefined: not known. */
  unavailable: string[] | undefined;
}

/** All CPU models of this QEMU, with what the accelerator in use lacks for each. */
export async function queryCpuModels(qmp: QmpSession): Promise<CpuModel[]> {
  return cpus.parse(await qmp.execute("query-cpu-definitions")).map((cpu) => ({
    name: cpu.name,
    migrationSafe: cpu["migration-safe"],
    isAlias: cpu["alias-of"] !== undefined,
    unavailable: cpu["unavailable-features"],
  }));
}

/** Presses the power button. */
export const systemPowerdown = async (qmp: QmpSession): Promise<void> => void (await qmp.execute("system_powerdown"));

/** Ends QEMU at once. */
export const quit = async (qmp: QmpSession, deadlineMs?: number): Promise<void> =>
  void (await qmp.execute("quit", {}, deadlineMs === undefined ? {} : { deadlineMs }));
