/** What tests, demo and bench share: kubectl as a user has it, waiting, and the objects they apply. */
import { readFile } from "node:fs/promises";
import path from "node:path";
import { execa } from "execa";
import { stringify } from "yaml";
import { lab } from "../lab/index.ts";

interface KubectlOptions {
  input?: string;
  seconds?: number;
}

/** Runs kubectl against the lab; throws with kubectl's own words. */
export const kubectl = async (args: string[], options: KubectlOptions = {}): Promise<string> => {
  const { kubectl: command, kubeconfig } = lab();
  const result = await execa(command, ["--kubeconfig", kubeconfig, ...args], {
    timeout: (options.seconds ?? 60) * 1000,
    ...(options.input === undefined ? { stdin: "ignore" as const } : { input: options.input }),
  });
  return result.stdout;
};

/** What kubectl says when it refuses; fails when it does not. */
export const refused = async (args: string[], input?: string): Promise<string> => {
  try {
    await kubectl(args, input === undefined ? {} : { input });
  } catch (error) {
    return String((error as { stderr?: string }).stderr);
  }
  throw new Error(`kubectl ${args.join(" ")} was not refused`);
};

export const apply = (...objects: object[]): Promise<string> =>
  kubectl(["apply", "-f", "-"], { input: objects.map((object) => stringify(object)).join("---\n") });

/** Waits until a JSONPath of an object has a value, or a condition is true: `kubectl wait --for=...`. */
export const waitFor = (what: string, condition: string, seconds = 120, namespace = "default"): Promise<string> =>
  kubectl(["wait", what, "-n", namespace, `--for=${condition}`, `--timeout=${seconds}s`], { seconds: seconds + 10 });

export const get = async <T>(what: string, namespace = "default"): Promise<T> =>
  JSON.parse(await kubectl(["get", what, "-n", namespace, "-o", "json"])) as T;

/** Calls `ask` until it gives a value; for what only a guest knows, which sends no event. */
export const eventually = async <T>(ask: () => Promise<T | undefined | false>, seconds: number, what: string): Promise<T> => {
  const deadline = performance.now() + seconds * 1000;
  let last: unknown;
  for (;;) {
    try {
      const answer = await ask();
      if (answer !== undefined && answer !== false) return answer;
    } catch (error) {
      last = error;
    }
    if (performance.now() > deadline) throw new Error(`${what}: not within ${seconds} s`, { cause: last });
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
};

export interface TestImage {
  url: string;
  checksum: string;
  virtualSizeBytes: number;
}

/** The images that the lab serves. */
export const images = async (): Promise<Record<"tiny" | "tinyRaw", TestImage>> =>
  JSON.parse(await readFile(path.join(lab().out, "images.json"), "utf8")) as Record<"tiny" | "tinyRaw", TestImage>;

export interface GuestReport {
  hostname: string;
  bootId: string;
  uptimeSeconds: number;
  records: number;
  lastAcked: number;
  /** MiB that it has written to its memory because it was told to, in all. */
  dirtiedMib: number;
  ipv4: string | null;
  ipv6: string[];
}

export const namespaceManifest = (name: string) => ({ apiVersion: "v1", kind: "Namespace", metadata: { name } });

export const poolManifest = (name: string, size: string) => ({
  apiVersion: "drover.dev/v1alpha1",
  kind: "StoragePool",
  metadata: { name },
  spec: { driver: "btrfs", source: { loop: { size } } },
});

export const networkManifest = (namespace: string, name: string, spec: object) => ({
  apiVersion: "drover.dev/v1alpha1",
  kind: "Network",
  metadata: { name, namespace },
  spec,
});

interface VirtualMachineOptions {
  image: TestImage;
  node?: string;
  network?: string;
  pool?: string;
  spec?: object;
}

export const virtualMachine = (namespace: string, name: string, options: VirtualMachineOptions) => ({
  apiVersion: "drover.dev/v1alpha1",
  kind: "Instance",
  metadata: { name, namespace },
  spec: {
    type: "VirtualMachine",
    image: { url: options.image.url, checksum: options.image.checksum },
    cpu: 1,
    memory: "256Mi",
    rootDisk: { pool: options.pool ?? "local", size: "1Gi" },
    nics: options.network === undefined ? [] : [{ name: "eth0", network: options.network }],
    ...(options.node === undefined ? {} : { placement: { nodeSelector: { "kubernetes.io/hostname": options.node } } }),
    ...options.spec,
  },
});
