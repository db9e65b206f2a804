import { describe, expect, it } from "vitest";
import { apiserverCommand } from "./apiserver.ts";
import { controllerManagerCommand } from "./controller-manager.ts";
import { etcdCommand } from "./etcd.ts";
import { binariesDirectory, firstServiceIp } from "./index.ts";
import { schedulerCommand } from "./scheduler.ts";
import type { Place } from "./types.ts";

const place: Place = {
  address: "10.88.0.1",
  ports: { etcdClient: 1, etcdPeer: 2, apiserver: 6443, controllerManager: 3, scheduler: 4 },
  directory: "/lab",
  binaries: "/bin",
  pki: { directory: "/pki", ca: "/pki/ca.crt", caKey: "/pki/ca.key", serviceAccountKey: "/pki/service-account.key" },
  serviceCidr: "10.96.0.0/16",
};

describe("command lines", () => {
  it("etcd: clients need a certificate, nothing is fsynced", () =>
    expect(etcdCommand(place)).toEqual({
      name: "etcd",
      command: "/bin/etcd",
      args: [
        "--name=lab",
        "--data-dir=/lab/etcd",
        "--listen-client-urls=https://127.0.0.1:1",
        "--advertise-client-urls=https://127.0.0.1:1",
        "--listen-peer-urls=http://127.0.0.1:2",
        "--initial-advertise-peer-urls=http://127.0.0.1:2",
        "--initial-cluster=lab=http://127.0.0.1:2",
        "--client-cert-auth",
        "--trusted-ca-file=/pki/ca.crt",
        "--cert-file=/pki/apiserver.crt",
        "--key-file=/pki/apiserver.key",
        "--log-level=warn",
        "--unsafe-no-fsync",
      ],
    }));

  it("etcd: durable on request", () => expect(etcdCommand(place, { durable: true }).args).not.toContain("--unsafe-no-fsync"));

  it("kube-apiserver: address, ports, what is optional, and the caller's flags last", () => {
    const plain = apiserverCommand(place).args;
    expect(plain).toEqual(
      expect.arrayContaining([
        "--etcd-servers=https://127.0.0.1:1",
        "--bind-address=10.88.0.1",
        "--advertise-address=10.88.0.1",
        "--secure-port=6443",
      ]),
    );
    expect(plain.filter((flag) => /audit|authentication-config/.test(flag))).toEqual([]);
    const audited = apiserverCommand(place, { audit: { policyFile: "/p.yaml", logFile: "/a.log" }, flags: ["--v=2"] }).args;
    expect(audited.slice(-3)).toEqual(["--audit-policy-file=/p.yaml", "--audit-log-path=/a.log", "--v=2"]);
  });

  it("kube-controller-manager: addresses are given to nodes only when there is a network for them", () => {
    const kubeconfig = "/lab/kubeconfig/controller-manager.conf";
    expect(controllerManagerCommand(place, { kubeconfig }).args.filter((flag) => flag.includes("cidr"))).toEqual([]);
    const args = controllerManagerCommand(place, { kubeconfig, clusterCidr: "10.89.0.0/16", nodeGraceSeconds: 8 }).args;
    expect(args).toEqual(
      expect.arrayContaining([
        "--allocate-node-cidrs=true",
        "--cluster-cidr=10.89.0.0/16",
        "--node-monitor-grace-period=8s",
        "--kube-api-qps=500",
      ]),
    );
  });

  it("kube-scheduler: not held back by its own client", () => {
    const args = schedulerCommand(place, { kubeconfig: "/k" }).args;
    expect(args).toEqual(
      expect.arrayContaining(["--kubeconfig=/k", "--kube-api-qps=1000", "--kube-api-burst=2000", "--secure-port=4"]),
    );
  });

  it.each([
    [{ DROVER_BIN: "/b", DROVER_CACHE: "/c" }, "/b"],
    [{ DROVER_CACHE: "/c" }, "/c/bin"],
    [{}, "/var/cache/drover/bin"],
  ])("binaries with %j are in %s", (env, directory) => expect(binariesDirectory(env)).toBe(directory));

  it("knows the first Service address", () => {
    expect(firstServiceIp("10.96.0.0/16")).toBe("10.96.0.1");
    expect(() => firstServiceIp("10.96.0.7")).toThrow("serviceCidr 10.96.0.7");
  });
});
