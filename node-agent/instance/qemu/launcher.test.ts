import { expect, test } from "vitest";
import { nodePaths } from "../../node.ts";
import { enterArguments } from "./launcher.ts";

test("enterArguments: own volumes only, one mount for each pool", () => {
  const uid = "11111111-2222-3333-4444-555555555555";
  const paths = nodePaths("/var/lib/drover");
  const args = enterArguments(
    {
      instanceUid: uid,
      namespace: "team-a",
      name: "web",
      claimUid: "99999999-2222-3333-4444-555555555555",
      identity: { uid: 100_007, gid: 100_008 },
      cpus: 1,
      memoryBytes: 1 << 28,
      disks: [
        { id: "root", pool: "fast", path: `${paths.volumes("fast", uid)}/root.raw` },
        { id: "data", pool: "fast", path: `${paths.volumes("fast", uid)}/data.raw` },
        { id: "more", pool: "big", path: `${paths.volumes("big", uid)}/more.raw` },
      ],
      nics: [],
      machineType: "pc-q35-10.0",
      cpuModel: "Haswell-v4",
      accelerator: "KVM",
      runtimeVersion: "v7",
    },
    { paths, cgroupRoot: "/sys/fs/cgroup", cgroup: "kubepods/burstable/podX" },
  );
  const command = args.indexOf("--");
  expect(
    args
      .slice(0, command)
      .join(" ")
      .split(/ (?=--)/),
  ).toEqual([
    "--ready 3",
    "--cgroup-root /sys/fs/cgroup",
    "--cgroup kubepods/burstable/podX",
    "--runtime /var/lib/drover/runtime/v7",
    `--instance /var/lib/drover/instances/${uid}`,
    `--disk fast=/var/lib/drover/pools/fast/volumes/${uid}`,
    `--disk big=/var/lib/drover/pools/big/volumes/${uid}`,
    "--uid 100007",
    "--gid 100008",
    "--kvm",
    "--listen 3=qmp",
    "--listen 4=qmp2",
    "--listen 5=qga",
    "--append 6=console.log",
  ]);
  expect(args.slice(command, command + 4)).toEqual([
    "--",
    "/usr/bin/qemu-system-x86_64",
    "-name",
    "guest=team-a/web,debug-threads=on",
  ]);
});
