import { describe, expect, test } from "vitest";
import { describeLab } from "./identity.ts";
import { dropLink, hubBatch, nodeBatch, overlapping } from "./network.ts";

const lab = describeLab("/a", { DROVER_LAB_OCTET: "150" });

describe("overlapping", () => {
  test.each([
    ["nothing near", [{ dst: "192.168.1.0/24", dev: "eth0" }], []],
    ["a default route", [{ dst: "default", dev: "eth0" }], []],
    ["the same subnet", [{ dst: "10.150.0.0/16", dev: "vpn0" }], ["10.150.0.0/16 (vpn0)"]],
    ["one address of it", [{ dst: "10.150.3.7", dev: "eth0" }], ["10.150.3.7 (eth0)"]],
    ["all of 10/8", [{ dst: "10.0.0.0/8", dev: "vpn0" }], ["10.0.0.0/8 (vpn0)"]],
    ["its neighbour", [{ dst: "10.151.0.0/16", dev: "vpn0" }], []],
    ["the lab's own link", [{ dst: "10.150.0.0/24", dev: "dl-x" }], []],
  ])("%s", (_, routes, taken) => expect(overlapping("10.150.0.0/16", routes, "dl-x")).toEqual(taken));
});

describe("batches", () => {
  test("the hub reaches every node's pods, and says last that it is complete", () => {
    const lines = hubBatch(lab).split("\n");
    for (const node of lab.nodes) expect(lines).toContain(`route add ${node.podCidr} via ${node.address}`);
    expect(lines.at(-1)).toMatch(/^link set br0 alias /);
  });

  test("a node reaches the other nodes' pods but has no route to its own", () => {
    const [first, second] = lab.nodes;
    if (!first || !second) throw new Error("no nodes");
    const lines = nodeBatch(lab, first).split("\n");
    expect(lines).toContain(`route add ${second.podCidr} via ${second.address}`);
    expect(lines.some((line) => line.includes(first.podCidr))).toBe(false);
  });

  test("the machines of the lab go by what is wanted of TCP, once the link is up; where it is not there nothing is said of it", () => {
    const [node] = lab.nodes;
    if (!node) throw new Error("no nodes");
    for (const [batch, link, address] of [
      [hubBatch(lab, "cubic"), "br0", lab.hub.address],
      [nodeBatch(lab, node, "cubic"), "eth0", node.address],
    ] as const) {
      const lines = batch.split("\n");
      const at = lines.findIndex((line) => line.endsWith("congctl cubic"));
      expect(lines[at]).toMatch(new RegExp(`^route replace \\S+\\.0/24 dev ${link} .*src ${address} `));
      expect(at).toBeGreaterThan(lines.indexOf(`link set ${link} up`));
    }
    expect(nodeBatch(lab, node)).not.toContain("congctl");
  });
});

describe("a link that is dropped", () => {
  /** `ip` where the link is there for so many looks, and `del` is refused or not. */
  const asked = async (looks: number, refused = false): Promise<string[]> => {
    const said: string[] = [];
    let left = looks;
    await dropLink("n3", async ([, what = ""]) => {
      said.push(what);
      if (what === "show" ? left-- <= 0 : refused) throw new Error('Cannot find device "n3"');
    });
    return said;
  };

  test.each<[string, number, boolean, string[]]>([
    ["is not there", 0, false, ["show"]],
    ["is there", 1, false, ["show", "del"]],
    ["goes by itself meanwhile", 1, true, ["show", "del", "show"]],
  ])("%s", async (_, looks, refused, want) => expect(await asked(looks, refused)).toEqual(want));

  test("stays, and says why", () => expect(asked(2, true)).rejects.toThrow("Cannot find device"));
});
