import { expect, test } from "vitest";
import { nodePaths } from "../../node.ts";
import type { MachinePlan } from "../driver.ts";
import { enterArguments } from "./launcher.ts";

const uid = "11111111-2222-3333-4444-555555555555";
const paths = nodePaths("/var/lib/drover");
const plan: MachinePlan = {
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
};
const place = { paths, cgroupRoot: "/sys/fs/cgroup", cgroup: "kubepods/burstable/podX" };
const options = (args: string[]): string[] =>
  args
    .slice(0, args.indexOf("--"))
    .join(" ")
    .split(/ (?=--)/);

test("enterArguments: own volumes only, one mount for each pool", () => {
  const args = enterArguments(plan, place);
  const command = args.indexOf("--");
  expect(options(args)).toEqual([
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

test("enterArguments: one that takes over has a lock, sockets and a directory of its own, and the taps of the one before", () => {
  const nics = ["eth0", "eth1"].map((id) => ({ id, tap: `tap-${id}`, mac: "02:00:00:00:00:01", mtu: 1442 }));
  const before = enterArguments({ ...plan, nics }, place);
  const args = enterArguments({ ...plan, nics }, { ...place, takesOverFrom: 4711 });
  expect(options(args).filter((option) => !options(before).includes(option))).toEqual([
    "--lock lock.next",
    "--sockets sockets",
    "--from 4711",
    "--listen 3=qmp.next",
    "--listen 4=qmp2.next",
    "--listen 5=qga.next",
    "--take-tap 7=tap-eth0",
    "--take-tap 8=tap-eth1",
  ]);
  expect(args.slice(-5)).toEqual([
    "-S",
    "-incoming",
    "defer",
    "-incoming",
    '{"channel-type":"cpr","addr":{"transport":"socket","type":"unix","path":"/sockets/cpr"}}',
  ]);
});
