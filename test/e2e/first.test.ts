/** The main job, as a newcomer does it: one apply, and virtual machines on a network. */
import { readFile } from "node:fs/promises";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { Probe } from "../../hack/lab/probe.ts";
import { addressOf, ask, instance, leftOn, observer, processOf, status, statusWithin } from "../../hack/kit/guest.ts";
import {
  apply,
  eventually,
  images,
  kubectl,
  namespaceManifest,
  networkManifest,
  virtualMachine,
  waitFor,
} from "../../hack/kit/cluster.ts";

const sample = path.resolve(import.meta.dirname, "../../manifests/samples/first.yaml");

describe("the sample that a newcomer applies", () => {
  beforeAll(async () => {
    const { tiny } = await images();
    const text = (await readFile(sample, "utf8")).replace(/http:\/\/\S+/, tiny.url).replace(/sha256:0+/, tiny.checksum);
    await kubectl(["apply", "-f", "-"], { input: text });
  });

  test("runs, and says so", async () => {
    await waitFor("inst/web", "condition=Ready", 180);
    const rows = (await kubectl(["get", "inst", "web"])).split("\n");
    expect(rows[0]?.split(/\s{2,}|\s+/)).toEqual(["NAME", "TYPE", "PHASE", "NODE", "IP", "AGE"]);
    expect(rows[1]).toMatch(/^web +VirtualMachine +Running +n[123] +10\.10\.0\.\d+ +\S+$/);
  });

  test("the pool and the network are ready too", async () => {
    await waitFor("dpool/local", "condition=Ready");
    await waitFor("dnet/blue", "condition=Ready");
    expect(await kubectl(["get", "dpool", "local"])).toMatch(/local +btrfs +24Gi +\S+ +3\/3 +True/);
    expect(await kubectl(["get", "drover"])).toContain("instance.drover.dev/web");
  });

  test("what runs is what was asked for, confined", async () => {
    const web = await instance("default", "web");
    expect(web.status?.guest).toMatchObject({ state: "Running", accelerator: "TCG", firmware: "SeaBIOS" });
    expect(web.status?.guest?.machineType).toMatch(/^pc-q35-\d+\.\d+$/);
    await processOf(web);
    expect(web.status?.claim?.name).toMatch(/^drover-web-[0-9a-f]{5}$/);
  });

  test("deleting it leaves nothing on its node", async () => {
    const web = await instance("default", "web");
    await kubectl(["delete", "inst", "web", "--timeout=60s"], { seconds: 70 });
    expect(await leftOn(web.status?.nodeName ?? "", web.metadata.uid)).toEqual([]);
    expect(await kubectl(["get", "pods", "-l", "drover.dev/claim=web", "-o", "name"])).toBe("");
  });
});

describe("two instances on two nodes", () => {
  let probe: Probe;
  let second: string;

  beforeAll(async () => {
    const { tiny, tinyRaw } = await images();
    const spec = { ipv4: { cidr: "10.20.0.0/16" }, ipv6: { cidr: "fd42:20::/64" }, dns: { domain: "red.pair.internal" } };
    await apply(namespaceManifest("pair"));
    await apply(
      networkManifest("pair", "red", spec),
      virtualMachine("pair", "one", { image: tiny, node: "n1", network: "red" }),
      virtualMachine("pair", "two", { image: tinyRaw, node: "n2", network: "red" }),
    );
    await waitFor("inst/one", "condition=Ready", 180, "pair");
    await waitFor("inst/two", "condition=Ready", 180, "pair");
    second = await addressOf("pair", "two");
    probe = await observer({ node: "n3", namespace: "pair", network: "red", ipv4: "10.20.255.250/16", ipv6: "fd42:20::fa/64" });
  });
  afterAll(async () => {
    await probe?.remove();
    await kubectl(["delete", "namespace", "pair", "--timeout=120s"], { seconds: 130 });
  });

  test("each has by DHCP the addresses that its status tells", async () => {
    for (const name of ["one", "two"]) {
      const nic = (await instance("pair", name)).status?.nics?.[0];
      const ipv4 = nic?.ipv4 ?? "";
      const ipv6 = nic?.ipv6 ?? "";
      expect((await statusWithin(probe, ipv4, 60)).ipv4).toBe(ipv4);
      await eventually(async () => (await status(probe, ipv4)).ipv6.includes(ipv6), 60, `${name} has leased ${ipv6}`);
    }
  });

  test("they find each other by name, and answer over IPv4 and IPv6", async () => {
    const first = await addressOf("pair", "one");
    const two = (await instance("pair", "two")).status?.nics?.[0];
    for (const name of ["two", "two.red.pair.internal"]) {
      const { addresses } = await ask<{ addresses: string[] }>(probe, first, `/resolve/${name}`);
      expect(addresses.toSorted()).toEqual([two?.ipv4 ?? "", two?.ipv6 ?? ""].toSorted());
    }
    for (const target of ["two", second, two?.ipv6 ?? ""]) {
      // The first router advertisement may take a while to come.
      await eventually(async () => (await ask<{ ok: boolean }>(probe, first, `/ping/${target}`)).ok, 60, `one reaches ${target}`);
    }
  });

  test("stopped, it keeps its node, its addresses and its records; started, it goes on", async () => {
    const before = await statusWithin(probe, second, 60);
    const address = (await instance("pair", "two")).status?.nics;
    await kubectl(["-n", "pair", "patch", "inst/two", "--type=merge", "-p", '{"spec":{"power":"Stopped"}}']);
    await waitFor("inst/two", "jsonpath={.status.phase}=Stopped", 90, "pair");
    expect(await kubectl(["-n", "pair", "get", "pods", "-l", "drover.dev/claim=two", "-o", "name"])).toBe("");
    expect((await instance("pair", "two")).status?.nodeName).toBe("n2");
    await kubectl(["-n", "pair", "patch", "inst/two", "--type=merge", "-p", '{"spec":{"power":"Running"}}']);
    await waitFor("inst/two", "condition=Ready", 120, "pair");
    const after = await statusWithin(probe, second, 60);
    expect((await instance("pair", "two")).status?.nics).toEqual(address);
    expect(after.bootId).not.toBe(before.bootId);
    expect(after.records).toBeGreaterThanOrEqual(before.lastAcked);
  });
});
