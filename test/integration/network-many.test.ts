/** Rows of many instances in a real northbound database: what one costs does not grow with their number. */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { NicStatus } from "../../crds/instance.ts";
import { API_VERSION } from "../../crds/names.ts";
import { silentLogger } from "../../kube/index.ts";
import { instanceRows } from "../../operator/network/desired-instance.ts";
import { networkRows } from "../../operator/network/desired-network.ts";
import { networkFacts } from "../../operator/network/network-facts.ts";
import { Northbound } from "../../operator/network/northbound.ts";
import { NetworkWorld, northboundClient } from "./network-kit.ts";
import { NAMESPACE } from "./operator-kit.ts";

let world: NetworkWorld;

beforeAll(async () => {
  world = await NetworkWorld.start();
});
afterAll(() => world?.stop());

describe("many", () => {
  it("ports cost the same however many there are", async () => {
    const stop = new AbortController();
    const client = northboundClient(world.ovn);
    const many = new Northbound({ client, scope: "many", log: silentLogger });
    client.start(stop.signal);
    await many.ready();
    const facts = networkFacts({
      apiVersion: API_VERSION,
      kind: "Network",
      metadata: {
        name: "many",
        namespace: NAMESPACE,
        uid: "many0000",
        resourceVersion: "1",
        generation: 1,
        creationTimestamp: "2026-01-01T00:00:00Z",
      },
      spec: { ipv4: { cidr: "10.32.0.0/16", dhcp: true }, ipv6: { cidr: "fd42:32::/64", dhcp: true } },
    });
    await many.apply("network/many0000", facts.key, () => networkRows(facts, { mtu: 1442 }));
    const add = async (n: number): Promise<void> => {
      const nic: NicStatus = {
        name: "eth0",
        network: "many",
        mac: `52:54:01:00:${(n >> 8).toString(16).padStart(2, "0")}:${(n & 255).toString(16).padStart(2, "0")}`,
        ipv4: `10.32.${1 + (n >> 8)}.${n & 255}`,
        ipv6: `fd42:32::${n.toString(16)}:1`,
        port: `${NAMESPACE}.i${n}.eth0.u`,
        mtu: 1442,
      };
      const rows = () =>
        instanceRows({
          uid: `u${n}`,
          name: `i${n}`,
          chassis: ["n1"],
          nics: [{ nic, network: facts }],
          dnsOptions: many.dnsOptions,
        });
      await many.apply(`instance/u${n}`, `${NAMESPACE}/i${n}`, rows);
    };
    const batch = async (from: number, count: number): Promise<number> => {
      const began = performance.now();
      const lane = async (start: number): Promise<void> => {
        for (let n = start; n < from + count; n += 8) await add(n);
      };
      await Promise.all(Array.from({ length: 8 }, (_, lanes) => lane(from + lanes)));
      return count / ((performance.now() - began) / 1000);
    };
    const first = await batch(0, 250);
    await batch(250, 500);
    const last = await batch(750, 250);
    console.log(`instances' rows a second: ${Math.round(first)} the first 250, ${Math.round(last)} the last 250 of 1000`);
    expect(last).toBeGreaterThan(50);
    const writes: unknown[] = [];
    const again = performance.now();
    const off = world.watcher.onChange((changes) => writes.push(...changes));
    for (let n = 0; n < 1000; n += 1) await add(n);
    console.log(`1000 looked at again in ${Math.round(performance.now() - again)} ms`);
    off();
    expect(writes).toEqual([]);
    await Promise.all(
      many
        .owners()
        .filter(([owner]) => owner.startsWith("instance/"))
        .map(([owner, name]) => many.apply(owner, name, () => [])),
    );
    await many.apply("network/many0000", facts.key, () => []);
    expect(many.owners()).toEqual([]);
    stop.abort();
  });
});
