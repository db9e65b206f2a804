/** What the launcher is told by its environment, which the chart sets. */
import { z } from "zod";

const text = z.string().default("");

const environment = z.object({
  NODE_NAME: z.string().min(1),
  NODE_IP: z.union([z.ipv4(), z.ipv6()]),
  POD_NAMESPACE: z.string().min(1),
  DROVER_ROOT: z.string().startsWith("/").default("/var/lib/drover"),
  DROVER_OVS_RUNDIR: z.string().startsWith("/").default("/run/openvswitch"),
  DROVER_OVS_CGROUP: z.string().min(1).default("drover-ovs"),
  DROVER_HTTP_PORT: z.coerce.number().int().min(0).max(65_535).default(9412),
  DROVER_OVS_DATAPATH: z.enum(["auto", "kernel", "userspace"]).default("auto"),
  DROVER_OVS_RUNTIME_VERSION: text,
  DROVER_UNDERLAY_MODE: z.enum(["macvlan", "none"]).default("macvlan"),
  DROVER_UNDERLAY_PARENT: text,
  DROVER_UNDERLAY_CIDR: text,
  DROVER_OVN_NAMESPACE: text,
  DROVER_OVN_SERVICE: z.string().min(1).default("ovn-central"),
  DROVER_OVN_SB: text,
  DROVER_CHASSIS_DIR: text,
  DROVER_CERTIFICATES_RENEW: text,
});

export interface LauncherConfig {
  nodeName: string;
  nodeIp: string;
  /** `/var/lib/drover/ovs`. */
  home: string;
  runtimes: string;
  runDir: string;
  cgroup: string;
  port: number;
  datapath: "auto" | "kernel" | "userspace";
  runtimeVersion: string | undefined;
  underlay: { mode: "macvlan" | "none"; parent: string | undefined; cidr: string };
  /** Where ovn-central's endpoints are; a given remote wins. */
  ovn: { namespace: string; service: string; remote: string | undefined };
  /**
   * Where ovn-controller expects the node's certificate, and what is another text once the authority was replaced; undefined
   * with an OVN that has certificates of its own.
   */
  chassis: { directory: string; authority: string } | undefined;
}

/** Throws a sentence per variable that is wrong. */
export function readConfig(env: Record<string, string | undefined>): LauncherConfig {
  const parsed = environment.safeParse(env);
  if (!parsed.success) {
    const words = parsed.error.issues.map((issue) => `${issue.path.join(".")}: ${issue.message}`);
    throw new Error(`the environment of the ovs launcher is wrong: ${words.join("; ")}`);
  }
  const e = parsed.data;
  const home = `${e.DROVER_ROOT}/ovs`;
  return {
    nodeName: e.NODE_NAME,
    nodeIp: e.NODE_IP,
    home,
    runtimes: `${home}/runtime`,
    runDir: e.DROVER_OVS_RUNDIR,
    cgroup: e.DROVER_OVS_CGROUP,
    port: e.DROVER_HTTP_PORT,
    datapath: e.DROVER_OVS_DATAPATH,
    runtimeVersion: e.DROVER_OVS_RUNTIME_VERSION || undefined,
    underlay: {
      mode: e.DROVER_UNDERLAY_MODE,
      parent: e.DROVER_UNDERLAY_PARENT || undefined,
      cidr: e.DROVER_UNDERLAY_CIDR || "10.97.0.0/24",
    },
    ovn: {
      namespace: e.DROVER_OVN_NAMESPACE || e.POD_NAMESPACE,
      service: e.DROVER_OVN_SERVICE,
      remote: e.DROVER_OVN_SB || undefined,
    },
    chassis: e.DROVER_CHASSIS_DIR ? { directory: e.DROVER_CHASSIS_DIR, authority: e.DROVER_CERTIFICATES_RENEW } : undefined,
  };
}
