/** Drover in the lab: its chart installed or upgraded, pods replaced whose images changed, rollouts awaited. */
import { join } from "node:path";
import { z } from "zod";
import { kubectl } from "./control.ts";
import type { Lab } from "./identity.ts";
import type { Progress } from "./progress.ts";
import { LabError, run } from "./run.ts";

export const NAMESPACE = "drover-system";
const RELEASE = "drover";
const DEADLINE_MS = 300_000;

export interface InstallOptions {
  binaries: string;
  /** Mounts the working tree over the code in the images. */
  dev: boolean;
  /** Names of images whose content changed under the same name. */
  changed: string[];
}

/** helm with no file outside the lab's state. */
const helm = (lab: Lab, binaries: string, args: string[], deadlineMs = 120_000): Promise<string> => {
  const home = join(lab.state, "helm");
  const env = {
    HELM_CACHE_HOME: join(home, "cache"),
    HELM_CONFIG_HOME: join(home, "config"),
    HELM_DATA_HOME: join(home, "data"),
  };
  return run(join(binaries, "helm"), ["--kubeconfig", lab.kubeconfig, "--namespace", NAMESPACE, ...args], { deadlineMs, env });
};

const workloadsSchema = z.object({
  items: z.array(
    z.object({
      kind: z.string(),
      metadata: z.object({ name: z.string() }),
      spec: z.object({
        template: z.object({
          spec: z.object({
            containers: z.array(z.object({ image: z.string() })),
            initContainers: z.array(z.object({ image: z.string() })).optional(),
          }),
        }),
      }),
    }),
  ),
});

interface Workload {
  name: string;
  images: string[];
}

const workloads = async (lab: Lab, binaries: string): Promise<Workload[]> => {
  const text = await kubectl(lab, binaries, ["-n", NAMESPACE, "get", "deployments,daemonsets,statefulsets", "-o", "json"]);
  return workloadsSchema.parse(JSON.parse(text)).items.map(({ kind, metadata, spec }) => ({
    name: `${kind.toLowerCase()}/${metadata.name}`,
    images: [...spec.template.spec.containers, ...(spec.template.spec.initContainers ?? [])].map((one) => one.image),
  }));
};

/** A namespace whose pods may be privileged: those of the node are. */
const namespace = {
  apiVersion: "v1",
  kind: "Namespace",
  metadata: { name: NAMESPACE, labels: { "pod-security.kubernetes.io/enforce": "privileged" } },
};

/** What helm was killed at stays "pending" and blocks every later try: its record goes, the objects stay. */
const forgetInterrupted = async (lab: Lab, binaries: string): Promise<void> => {
  for (const status of ["pending-install", "pending-upgrade", "pending-rollback"]) {
    const labels = `owner=helm,name=${RELEASE},status=${status}`;
    await kubectl(lab, binaries, ["-n", NAMESPACE, "delete", "secret", "-l", labels, "--ignore-not-found"]);
  }
};

/** Waits for all rollouts at once; says of those that did not end well how their pods are. */
export const rolloutsDone = async (lab: Lab, binaries: string, progress: Progress): Promise<void> => {
  const all = await workloads(lab, binaries);
  const failures = await Promise.all(
    all.map(({ name }) =>
      progress
        .step(`  ${name}`, () =>
          kubectl(lab, binaries, ["-n", NAMESPACE, "rollout", "status", name, `--timeout=${DEADLINE_MS / 1000}s`], {
            deadlineMs: DEADLINE_MS + 5_000,
          }),
        )
        .then(
          () => undefined,
          (error: unknown) => (error instanceof LabError ? name : Promise.reject(error)),
        ),
    ),
  );
  const failed = failures.filter((one) => one !== undefined);
  if (failed.length === 0) return;
  const pods = await kubectl(lab, binaries, ["-n", NAMESPACE, "get", "pods", "-o", "wide"]);
  throw new LabError(`not rolled out within ${DEADLINE_MS / 1000} s: ${failed.join(", ")}; the lab is up all the same.\n${pods}`);
};

/** Replaces pods of workloads that use one of the images; all workloads with `images` left out. */
export const restartWorkloads = async (lab: Lab, binaries: string, images?: string[]): Promise<string[]> => {
  const touched = (await workloads(lab, binaries)).filter(
    (one) => images === undefined || one.images.some((image) => images.includes(image)),
  );
  for (const { name } of touched) await kubectl(lab, binaries, ["-n", NAMESPACE, "rollout", "restart", name]);
  return touched.map((one) => one.name);
};

/** Installs or upgrades the chart of this checkout; resolves when all of it is rolled out. May be repeated. */
export const installDrover = async (lab: Lab, progress: Progress, { binaries, dev, changed }: InstallOptions): Promise<void> => {
  await progress.step("Drover's chart", async () => {
    await kubectl(lab, binaries, ["apply", "-f", "-"], { input: JSON.stringify(namespace) });
    await forgetInterrupted(lab, binaries);
    const values = ["--values", join(import.meta.dirname, "values.yaml")];
    if (dev) values.push("--set", `dev.enabled=true,dev.path=${lab.checkout}`);
    await helm(lab, binaries, ["upgrade", "--install", RELEASE, join(lab.checkout, "manifests", "chart"), ...values]);
  });
  if (changed.length > 0) await restartWorkloads(lab, binaries, changed);
  await progress.step("Drover rolled out", () => rolloutsDone(lab, binaries, progress));
};
