/** Networks on bad days: OVN away, objects that vanish, names that somebody else has. */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { instances as instanceType, networks as networkType } from "../../crds/resources.ts";
import { findCondition } from "../../kube/index.ts";
import { key, NetworkWorld, nicOf, readyReason } from "./network-kit.ts";
import { NAMESPACE, until } from "./operator-kit.ts";

let world: NetworkWorld;

beforeAll(async () => {
  world = await NetworkWorld.start();
});
afterAll(() => world?.stop());

describe("bad days", () => {
  it("OVN away: said in conditions, tried again, recovered", async () => {
    await world.makeNetwork("calm", { ipv4: { cidr: "10.11.0.0/24", dhcp: true } });
    await world.networkReady("calm");
    await world.ovn.nb.stop("SIGKILL");
    await world.makeNetwork("away", { ipv4: { cidr: "10.12.0.0/24", dhcp: true } });
    const away = await until("OVNUnreachable is told", world.networks, () =>
      readyReason(world.network("away")) === "OVNUnreachable" ? world.network("away") : undefined,
    );
    expect(findCondition(away.status?.conditions, "Ready")?.message).toMatch(
      /^OVN's northbound database cannot be reached: .*; it is tried again$/,
    );
    await world.makeInstance("patient", [{ name: "eth0", network: "away" }]);
    await until("the instance says so too", world.cluster.seenInstances, () =>
      readyReason(world.cluster.seenInstances.get(key("patient")), "NetworkReady") === "OVNUnreachable" ? true : undefined,
    );
    // What stands in OVN already is not called into question, however often it is looked at.
    await world.cluster.client.patchMerge(networkType, key("calm"), { metadata: { labels: { touched: "yes" } } });
    await world.cluster.client.patchMerge(networkType, key("away"), { metadata: { labels: { touched: "yes" } } });
    await until("the touch is seen", world.networks, () => world.network("away")?.metadata.labels?.["touched"] === "yes");
    expect(readyReason(world.network("calm"))).toBe("Programmed");
    await world.ovn.nb.start();
    await Promise.all([world.networkReady("away"), world.running("patient")]);
    const { port } = nicOf(await world.running("patient"));
    await world.northbound("its port is there", () => world.hasPort(port));
  });

  it("an object whose finalizer was taken away by force leaves no rows", async () => {
    const away = world.network("away");
    const patient = world.cluster.seenInstances.get(key("patient"));
    await world.cluster.client.patchMerge(instanceType, key("patient"), { metadata: { finalizers: [] } });
    await world.cluster.client.delete(instanceType, key("patient"));
    await world.northbound("the instance's rows are gone", () => world.rowsOf(patient?.metadata.uid ?? "").length === 0);
    await world.stopOperator();
    await world.cluster.client.patchMerge(networkType, key("away"), { metadata: { finalizers: [] } });
    await world.cluster.client.delete(networkType, key("away"));
    expect(world.rowsOf(away?.metadata.uid ?? "")).not.toEqual([]);
    await world.startOperator();
    await world.northbound("the network's rows are gone", () => world.rowsOf(away?.metadata.uid ?? "").length === 0);
  });

  it("a name that somebody else has in OVN is said, and heals", async () => {
    await world.makeNetwork("clash", { ipv4: { cidr: "10.13.0.0/24", dhcp: true } });
    await world.networkReady("clash");
    const instance = await world.makeInstance("clashing", [{ name: "eth0", network: "clash" }]);
    const port = `${NAMESPACE}.clashing.eth0.${instance.metadata.uid.slice(0, 8)}`;
    const bound = await world.running("clashing");
    expect(nicOf(bound).port).toBe(port);
    // Theirs, under our name, on a switch of theirs.
    await world.ovn.nbctl("lsp-del", port, "--", "--may-exist", "ls-add", "theirs", "--", "lsp-add", "theirs", port);
    const told = await until("the refusal is told", world.cluster.seenInstances, () => {
      const one = world.cluster.seenInstances.get(key("clashing"));
      return readyReason(one, "NetworkReady") === "PortRefused" ? one : undefined;
    });
    expect(findCondition(told.status?.conditions, "NetworkReady")?.message).toMatch(/refused its ports: .*constraint violation/);
    await world.ovn.nbctl("lsp-del", port);
    await world.running("clashing");
    await world.northbound("the port is ours", () => world.hasPort(port));
  });
});
