/** Which machine and CPU new guests get here, out of what this QEMU and this accelerator have. Pure. */
import type { CpuModel, MachineType } from "./qmp/commands.ts";

/**
 * Models to choose from, best first: named versions with a fixed set of features, so that a guest finds the same CPU after a
 * restart or on another node. The first two are x86-64-v3 by Intel and AMD, the next two x86-64-v2; the last runs anywhere.
 */
const CPU_MODELS = ["Haswell-v4", "EPYC-v1", "Westmere-v1", "Nehalem-v1", "qemu64-v1"];

const Q35 = /^pc-q35-(\d+)\.(\d+)(?:\.(\d+))?$/;

/** Versioned machine types of the one family that Drover makes, newest first. */
export function machineTypes(all: readonly MachineType[]): string[] {
  return all
    .filter(({ name, deprecated }) => !deprecated && Q35.test(name))
    .map(({ name }) => name)
    .sort((a, b) => compareVersions(versionOf(b), versionOf(a)));
}

/** The best model of which the accelerator lacks nothing; undefined when there is none. */
export function bestCpuModel(all: readonly CpuModel[]): string | undefined {
  const usable = new Set(all.filter((cpu) => cpu.migrationSafe && cpu.unavailable?.length === 0).map(({ name }) => name));
  return CPU_MODELS.find((name) => usable.has(name));
}

const versionOf = (name: string): number[] => (Q35.exec(name) ?? []).slice(1).map((part) => Number(part ?? 0));

function compareVersions(a: number[], b: number[]): number {
  const index = a.findIndex((part, at) => part !== b[at]);
  return index < 0 ? 0 : (a[index] ?? 0) - (b[index] ?? 0);
}
