/** The control plane that tests and the lab stand on. */
import { existsSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { createServer, type AddressInfo, type Server } from "node:net";
import { afterEach, describe, expect, it } from "vitest";
import { startLocalControlPlane, type LocalControlPlane } from "../../../hack/control-plane/local.ts";
import { KubeClient, resource, resources, type KubeObject } from "../../../kube/index.ts";
import { eventually } from "./world.ts";

let plane: LocalControlPlane | undefined;
let holder: Server | undefined;
afterEach(async () => {
  await plane?.stop();
  plane = undefined;
  await new Promise<void>((resolve) => (holder ? holder.close(() => resolve()) : resolve()));
  holder = undefined;
});

const holdPort = async (): Promise<number> => {
  const server = createServer((socket) => socket.destroy());
  holder = server;
  await new Promise<void>((resolve) => void server.listen(0, "127.0.0.1", resolve));
  return (server.address() as AddressInfo).port;
};
const children = () => readFile(`/proc/${process.pid}/task/${process.pid}/children`, "utf8");

describe("control plane", () => {
  it("all four parts: controllers work, and stopping leaves nothing", async () => {
    plane = await startLocalControlPlane({ controllerManager: {}, scheduler: {} });
    const client = KubeClient.fromKubeconfig(await readFile(plane.kubeconfig, "utf8"));
    const serviceAccounts = resource<KubeObject>("", "v1", "serviceaccounts", "ServiceAccount");
    // Made by the controller-manager.
    await eventually(async () =>
      expect(await client.get(serviceAccounts, { namespace: "default", name: "default" })).toBeDefined(),
    );
    const pod = {
      apiVersion: "v1",
      kind: "Pod",
      metadata: { namespace: "default", name: "p" },
      spec: { containers: [{ name: "c", image: "none" }] },
    };
    await client.create(resources.pods, pod);
    await eventually(async () => {
      const seen = await client.get(resources.pods, { namespace: "default", name: "p" });
      expect(seen?.status?.conditions?.[0]).toMatchObject({ type: "PodScheduled", reason: "Unschedulable" });
    });
    const pids = Object.values(plane.started).map(({ pid }) => pid);
    expect(pids).toHaveLength(4);
    await plane.stop();
    expect(pids.filter((pid) => existsSync(`/proc/${pid}`))).toEqual([]);
    expect(existsSync(plane.directory)).toBe(false);
  });

  it.each(["etcdClient", "apiserver"] as const)("a taken port (%s) is told, and nothing is left", async (which) => {
    const before = await children();
    const port = await holdPort();
    const words = await startLocalControlPlane({ ports: { [which]: port } }).then(
      (one) => {
        plane = one;
        return "it started";
      },
      (error: Error) => error.message,
    );
    expect(words).toMatch(
      which === "etcdClient" ? /^etcd ended; its log ends with:/ : /^kube-apiserver ended; its log ends with:/,
    );
    expect(words).toContain("address already in use");
    expect(await children()).toEqual(before);
  });
});
