/** Configuration of a node's containerd, CNI and kubelet: pure text, so that a test can hold them still. */
import { join } from "node:path";
import { stringify } from "yaml";
import type { LabNode } from "../identity.ts";

/** Image of pod sandboxes; made by the lab and never pulled. */
export const SANDBOX_IMAGE = "localhost/drover-lab-pause:1";

export const containerdSocket = "/run/containerd/containerd.sock";

/** containerd's configuration. No hugetlb and no lower OOM scores: the lab may lack CAP_SYS_RESOURCE. */
export const containerdConfig = (node: LabNode): string => `version = 2
oom_score = 0
disabled_plugins = ["io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs"]
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "${SANDBOX_IMAGE}"
  restrict_oom_score_adj = true
  disable_hugetlb_controller = true
  tolerate_missing_hugetlb_controller = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "${join(node.state, "config", "net.d")}"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = false
`;

/** The node's own pod network: a bridge, addresses from its own /24. */
export const cniConfig = (node: LabNode): string =>
  JSON.stringify({
    cniVersion: "1.0.0",
    name: "lab",
    plugins: [
      {
        type: "bridge",
        bridge: "cni0",
        isGateway: true,
        ipMasq: false,
        hairpinMode: true,
        ipam: { type: "host-local", ranges: [[{ subnet: node.podCidr }]], routes: [{ dst: "0.0.0.0/0" }] },
      },
      { type: "portmap", capabilities: { portMappings: true } },
    ],
  });

export interface KubeletFiles {
  ca: string;
  certificate: string;
  key: string;
}

/** The kubelet's configuration: it keeps images whatever the disk looks like, and says soon when it is gone. */
export const kubeletConfig = (node: LabNode, files: KubeletFiles): string =>
  stringify({
    apiVersion: "kubelet.config.k8s.io/v1beta1",
    kind: "KubeletConfiguration",
    address: node.address,
    authentication: { anonymous: { enabled: false }, webhook: { enabled: true }, x509: { clientCAFile: files.ca } },
    authorization: { mode: "Webhook" },
    tlsCertFile: files.certificate,
    tlsPrivateKeyFile: files.key,
    containerRuntimeEndpoint: `unix://${containerdSocket}`,
    cgroupDriver: "cgroupfs",
    failSwapOn: false,
    failCgroupV1: false,
    oomScoreAdj: 0,
    makeIPTablesUtilChains: false,
    healthzBindAddress: "127.0.0.1",
    imageGCHighThresholdPercent: 100,
    imageGCLowThresholdPercent: 99,
    imageMaximumGCAge: "0s",
    evictionHard: {
      "memory.available": "64Mi",
      "nodefs.available": "1%",
      "nodefs.inodesFree": "1%",
      "imagefs.available": "1%",
      "imagefs.inodesFree": "1%",
    },
    nodeStatusUpdateFrequency: "4s",
    nodeLeaseDurationSeconds: 20,
    syncFrequency: "10s",
    // Tests kill agents by the dozen; by the usual back-off each would be waited for longer than the one before, up to five minutes.
    featureGates: { KubeletCrashLoopBackOffMax: true },
    crashLoopBackOff: { maxContainerRestartPeriod: "2s" },
    serializeImagePulls: false,
    clusterDomain: "cluster.local",
    // There is no cluster DNS: without this every pod gets a warning event. Nothing listens there.
    clusterDNS: ["10.96.0.10"],
    resolvConf: "",
    registerNode: true,
    volumePluginDir: "/var/lib/kubelet/volumeplugins",
    podLogsDir: "/var/log/pods",
  });
