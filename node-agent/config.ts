/** What the agent is told by its environment, which the chart sets. */
import { z } from "zod";

const text = z.string().default("");
const list = text.transform((value) =>
  value
    .split(",")
    .map((one) => one.trim())
    .filter((one) => one !== ""),
);

const environment = z.object({
  NODE_NAME: z.string().min(1),
  POD_NAME: z.string().default("node-agent"),
  POD_NAMESPACE: z.string().min(1),
  DROVER_HTTP_PORT: z.coerce.number().int().min(0).max(65_535).default(9411),
  DROVER_ACCELERATOR: z.enum(["auto", "kvm", "tcg"]).default("auto"),
  DROVER_RUNTIME_VERSION: text,
  DROVER_CERTIFICATES_RENEW: text,
  DROVER_IMAGES_DENIED_CIDRS: list,
  DROVER_IMAGES_ALLOWED_CIDRS: list,
  DROVER_OVS_RUNDIR: z.string().startsWith("/").default("/run/openvswitch"),
  DROVER_RUNDIR: z.string().startsWith("/").default("/run/drover"),
  NODE_IP: z.union([z.ipv4(), z.ipv6()]),
  DROVER_MIGRATION_PORT: z.coerce.number().int().min(0).max(65_535).default(9413),
  DROVER_MIGRATION_DATA_PORTS: z
    .string()
    .regex(/^\d{1,5}-\d{1,5}$/, "must be a range such as 49152-49407")
    .default("49152-49407"),
  DROVER_CHECKPOINTS: text,
  DROVER_QEMU_TRACE: list.refine((events) => events.every((one) => /^[a-z0-9_]+$/.test(one)), "must be names of trace events"),
});

export interface AgentConfig {
  nodeName: string;
  podName: string;
  namespace: string;
  port: number;
  accelerator: "auto" | "kvm" | "tcg";
  runtimeVersion: string | undefined;
  /** QEMU's trace events that go to each guest's stderr log. */
  qemuTrace: string[];
  /** What the chart calls the authority of the nodes' certificates. */
  authority: string;
  images: { denied: string[]; allowed: string[] };
  ovsRunDir: string;
  /** Gone with the next boot. */
  runDir: string;
  migration: {
    /** This node's address, where other nodes reach its agent and its QEMUs. */
    address: string;
    port: number;
    dataPorts: readonly [number, number];
    /** Directory by which a test holds moves at their steps. */
    checkpoints: string | undefined;
  };
}

/** Throws a sentence that names every variable that is wrong. */
export function readConfig(env: Record<string, string | undefined>): AgentConfig {
  const parsed = environment.safeParse(env);
  if (!parsed.success) {
    const words = parsed.error.issues.map((issue) => `${issue.path.join(".")}: ${issue.message}`);
    throw new Error(`the environment of the agent is wrong: ${words.join("; ")}`);
  }
  const e = parsed.data;
  const [first = 0, last = 0] = e.DROVER_MIGRATION_DATA_PORTS.split("-").map(Number);
  if (first < 1 || last > 65_535 || first > last) {
    throw new Error("the environment of the agent is wrong: DROVER_MIGRATION_DATA_PORTS must be a range such as 49152-49407");
  }
  return {
    nodeName: e.NODE_NAME,
    podName: e.POD_NAME,
    namespace: e.POD_NAMESPACE,
    port: e.DROVER_HTTP_PORT,
    accelerator: e.DROVER_ACCELERATOR,
    runtimeVersion: e.DROVER_RUNTIME_VERSION || undefined,
    qemuTrace: e.DROVER_QEMU_TRACE,
    authority: e.DROVER_CERTIFICATES_RENEW,
    images: { denied: e.DROVER_IMAGES_DENIED_CIDRS, allowed: e.DROVER_IMAGES_ALLOWED_CIDRS },
    ovsRunDir: e.DROVER_OVS_RUNDIR,
    runDir: e.DROVER_RUNDIR,
    migration: {
      address: e.NODE_IP,
      port: e.DROVER_MIGRATION_PORT,
      dataPorts: [first, last],
      checkpoints: e.DROVER_CHECKPOINTS || undefined,
    },
  };
}
