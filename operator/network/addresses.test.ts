import { beforeEach, describe, expect, it } from "vitest";
import type { Instance, NicStatus } from "../../crds/instance.ts";
import type { Network } from "../../crds/network.ts";
import { keyText } from "../../kube/index.ts";
import { Addresses } from "./addresses.ts";
import { FakeCache, instanceOn, networkFixture } from "./fixtures.ts";
import { routerMac } from "./rows.ts";

let instances: FakeCache<Instance>;
let networks: FakeCache<Network>;
let addresses: Addresses;
let woken: string[];

beforeEach(() => {
  instances = new FakeCache();
  networks = new FakeCache();
  woken = [];
  addresses = new Addresses({ instances, networks, mtu: 1442, wake: (key) => woken.push(keyText(key)) });
  networks.put(networkFixture({ ipv4: { cidr: "10.10.0.0/24", dhcp: true }, ipv6: { cidr: "fd42:10::/64", dhcp: true } }));
});

const nicsOf = (instance: Instance): NicStatus[] => {
  const answer = addresses.assign(instance);
  if ("problem" in answer) throw new Error(answer.problem.message);
  return answer.nics;
};
const firstOf = (instance: Instance): NicStatus => {
  const [nic] = nicsOf(instance);
  if (!nic) throw new Error("no NIC");
  return nic;
};
const problemOf = (instance: Instance): string => {
  const answer = addresses.assign(instance);
  return "problem" in answer ? `${answer.problem.reason}: ${answer.problem.message}` : `none: ${JSON.stringify(answer.nics)}`;
};
/** Makes, assigns, and writes it as the operator would. */
const given = (instance: Instance): NicStatus[] => {
  instances.put(instance);
  const nics = nicsOf(instance);
  instances.put({ ...instance, status: { ...instance.status, nics } });
  return nics;
};
const withIp = (ipv4: string) => ({ nics: [{ name: "eth0", network: "blue", ipv4 }] });

describe("giving", () => {
  it("gives MAC, IPv4, IPv6, port and MTU", () => {
    const nic = firstOf(instances.put(instanceOn("web")));
    expect(nic).toMatchObject({ name: "eth0", network: "blue", port: "team-a.web.eth0.web00000", mtu: 1442 });
    expect(nic.mac).toMatch(/^52:54:00:/);
    expect(nic.ipv4).toMatch(/^10\.10\.0\.(?!(0|1|255)$)\d+$/);
    // What the guest would make of its MAC by itself.
    expect(nic.ipv6).toMatch(/^fd42:10::5054:ff:fe/);
  });

  it("gives the same again, before and after it was written, and by a new process", () => {
    const web = instances.put(instanceOn("web"));
    const first = nicsOf(web);
    expect(nicsOf(web)).toEqual(first);
    const written = instances.put({ ...web, status: { nics: first } });
    expect(nicsOf(written)).toEqual(first);
    const other = new FakeCache<Instance>();
    const fresh = new Addresses({ instances: other, networks, mtu: 1442, wake: () => undefined });
    expect(fresh.assign(other.put(written))).toEqual({ nics: first });
    // Even the unwritten is made the same anew: it comes from the uid.
    expect(new Addresses({ instances: new FakeCache(), networks, mtu: 1442, wake: () => undefined }).assign(web)).toEqual({
      nics: first,
    });
  });

  it("gives every address of a small network once, then says that it is full, then to whom waits", () => {
    networks.put(networkFixture({ ipv4: { cidr: "10.20.0.8/29", dhcp: true } }, "tiny"));
    const on = { nics: [{ name: "eth0", network: "tiny" }] };
    const all = [1, 2, 3, 4, 5].map((n) => instanceOn(`i${n}`, on));
    const got = all.map((one) => given(one)[0]?.ipv4);
    expect(new Set(got)).toEqual(new Set(["10.20.0.10", "10.20.0.11", "10.20.0.12", "10.20.0.13", "10.20.0.14"]));
    const late = instances.put(instanceOn("late", on));
    expect(problemOf(late)).toBe(
      "NetworkFull: nics[eth0]: all 5 IPv4 addresses of network team-a/tiny (10.20.0.8/29) are in use; delete an instance on it, or use a larger network",
    );
    problemOf(instances.put(instanceOn("later", on)));
    const [first] = all;
    if (first) instances.remove(instances.get({ namespace: "team-a", name: "i1" }) ?? first);
    expect(woken).toEqual(["team-a/late"]);
    expect(firstOf(late).ipv4).toBe(got[0]);
  });

  it("gives thousands without a double", () => {
    networks.put(
      networkFixture({ ipv4: { cidr: "10.40.0.0/20", dhcp: true }, ipv6: { cidr: "fd42:40::/64", dhcp: true } }, "big"),
    );
    const all = Array.from({ length: 3500 }, (_, n) =>
      given(instanceOn(`n${n}x`, { nics: [{ name: "eth0", network: "big" }] })),
    ).flat();
    expect(new Set(all.map(({ ipv4 }) => ipv4)).size).toBe(3500);
    expect(new Set(all.map(({ ipv6 }) => ipv6)).size).toBe(3500);
    expect(new Set(all.map(({ mac }) => mac)).size).toBe(3500);
  });

  it("gives nothing to an instance without NICs, and two of everything to one with two on a network", () => {
    expect(nicsOf(instanceOn("bare", { nics: [] }))).toEqual([]);
    const [a, b] = given(
      instanceOn("two", {
        nics: [
          { name: "eth0", network: "blue" },
          { name: "eth1", network: "blue" },
        ],
      }),
    );
    expect(a?.mac).not.toBe(b?.mac);
    expect(a?.ipv4).not.toBe(b?.ipv4);
    expect(a?.ipv6).not.toBe(b?.ipv6);
  });

  it("refuses to work on caches that have not synced", () => {
    instances.hasSynced = false;
    expect(() => addresses.assign(instanceOn("web"))).toThrow(/synced/);
  });
});

describe("what the spec names", () => {
  it("is given as written in the shortest form", () => {
    const nics = [{ name: "eth0", network: "blue", mac: "52:54:00:AA:00:01", ipv4: "10.10.0.20", ipv6: "FD42:10:0::0020" }];
    expect(firstOf(instances.put(instanceOn("web", { nics })))).toMatchObject({
      mac: "52:54:00:aa:00:01",
      ipv4: "10.10.0.20",
      ipv6: "fd42:10::20",
    });
  });

  it.each([
    [
      { ipv4: "10.11.0.5" },
      "AddressOutsideNetwork: nics[eth0]: ipv4 10.11.0.5 is not in 10.10.0.0/24 of network team-a/blue; choose an address of that network or leave it out",
    ],
    [
      { ipv4: "10.10.0.1" },
      "AddressReserved: nics[eth0]: ipv4 10.10.0.1 is the gateway of network team-a/blue; choose another address or leave it out",
    ],
    [
      { ipv4: "10.10.0.255" },
      "AddressReserved: nics[eth0]: ipv4 10.10.0.255 is the broadcast address of network team-a/blue; choose another address or leave it out",
    ],
    [
      { ipv6: "fd42:10::1" },
      "AddressReserved: nics[eth0]: ipv6 fd42:10::1 is the gateway of network team-a/blue; choose another address or leave it out",
    ],
    [
      { ipv6: "fd43::5" },
      "AddressOutsideNetwork: nics[eth0]: ipv6 fd43::5 is not in fd42:10::/64 of network team-a/blue; choose an address of that network or leave it out",
    ],
    [
      { mac: routerMac(networkFixture().metadata.uid) },
      `MacInUse: nics[eth0]: mac ${routerMac(networkFixture().metadata.uid)} is the router's of network team-a/blue; choose another or leave it out`,
    ],
  ])("%j is refused with words that help", (wish, words) => {
    expect(problemOf(instances.put(instanceOn("web", { nics: [{ name: "eth0", network: "blue", ...wish }] })))).toBe(words);
  });

  it("is refused in a family that the network has not", () => {
    networks.put(networkFixture({ ipv4: { cidr: "10.30.0.0/24", dhcp: true } }, "v4"));
    const web = instanceOn("web", { nics: [{ name: "eth0", network: "v4", ipv6: "fd42::5" }] });
    expect(problemOf(instances.put(web))).toMatch(
      /^NoSuchFamily: .*network team-a\/v4 has no ipv6; leave it out or use another network$/,
    );
  });

  it.each([
    ["two NICs", "ipv4", "10.10.0.9", "AddressInUse"],
    ["two NICs", "mac", "52:54:00:00:00:09", "MacInUse"],
  ])("%s of one instance cannot have the same %s", (_, field, value, reason) => {
    const nics = ["eth0", "eth1"].map((name) => ({ name, network: "blue", [field]: value }));
    expect(problemOf(instances.put(instanceOn("web", { nics })))).toBe(
      `${reason}: nics[eth1]: ${field} ${value} is in use by nics[eth0] of the same instance; choose another ${field} or leave it out`,
    );
  });
});

describe("conflicts", () => {
  it("what was given stays given, whoever is older", () => {
    given(instanceOn("young", { created: 9, ...withIp("10.10.0.20") }));
    const old = instances.put(instanceOn("old", { created: 1, ...withIp("10.10.0.20") }));
    expect(problemOf(old)).toBe(
      "AddressInUse: nics[eth0]: ipv4 10.10.0.20 is in use by instance team-a/young; choose another ipv4 or leave it out",
    );
  });

  it("of two that only wish, the older wins, in whatever order they are asked", () => {
    const young = instances.put(instanceOn("young", { created: 9, ...withIp("10.10.0.20") }));
    const old = instances.put(instanceOn("old", { created: 1, ...withIp("10.10.0.20") }));
    expect(problemOf(young)).toMatch(/^AddressInUse: .*by instance team-a\/old;/);
    expect(firstOf(old).ipv4).toBe("10.10.0.20");
    expect(problemOf(young)).toMatch(/^AddressInUse: /);
  });

  it("heals when the holder goes, and tells only who waits for that", () => {
    given(instanceOn("holder", { created: 1, ...withIp("10.10.0.20") }));
    const waits = instances.put(instanceOn("waits", { created: 2, ...withIp("10.10.0.20") }));
    const other = instances.put(instanceOn("other", { created: 3, ...withIp("10.10.0.1") }));
    problemOf(waits);
    problemOf(other);
    instances.remove(instances.get({ namespace: "team-a", name: "holder" }) ?? waits);
    expect(woken).toEqual(["team-a/waits"]);
    expect(firstOf(waits).ipv4).toBe("10.10.0.20");
  });

  it("one that was given an address, unwritten, does not lock out itself and an older one that then wishes for it", () => {
    const young = instances.put(instanceOn("young", { created: 9, ...withIp("10.10.0.20") }));
    expect(firstOf(young).ipv4).toBe("10.10.0.20");
    const old = instances.put(instanceOn("old", { created: 1, ...withIp("10.10.0.20") }));
    expect(firstOf(young).ipv4).toBe("10.10.0.20");
    expect(problemOf(old)).toMatch(/by instance team-a\/young;/);
  });

  it("a made-up address is never one that somebody wishes for", () => {
    networks.put(networkFixture({ ipv4: { cidr: "10.20.0.8/29", dhcp: true } }, "tiny"));
    const wish = instanceOn("wish", { created: 9, nics: [{ name: "eth0", network: "tiny", ipv4: "10.20.0.12" }] });
    instances.put(wish);
    const rest = [1, 2, 3, 4].map((n) => given(instanceOn(`i${n}`, { nics: [{ name: "eth0", network: "tiny" }] }))[0]?.ipv4);
    expect(rest).not.toContain("10.20.0.12");
    expect(firstOf(wish).ipv4).toBe("10.20.0.12");
  });

  it("of two that both have it in their status (a restored backup) the older keeps it", () => {
    const nic: NicStatus = {
      name: "eth0",
      network: "blue",
      mac: "52:54:00:00:00:01",
      ipv4: "10.10.0.9",
      ipv6: "fd42:10::9",
      port: "p",
      mtu: 1442,
    };
    const old = instances.put(instanceOn("old", { created: 1, given: [nic] }));
    const young = instances.put(
      instanceOn("young", { created: 9, given: [{ ...nic, mac: "52:54:00:00:00:02", ipv6: "fd42:10::a" }] }),
    );
    expect(firstOf(old).ipv4).toBe("10.10.0.9");
    expect(problemOf(young)).toBe(
      "AddressInUse: nics[eth0]: its ipv4 10.10.0.9 is in use by instance team-a/old; delete one of the two",
    );
  });

  it("MACs are one per network, whatever their case", () => {
    given(instanceOn("one", { nics: [{ name: "eth0", network: "blue", mac: "52:54:00:AA:BB:CC" }] }));
    const two = instances.put(instanceOn("two", { nics: [{ name: "eth0", network: "blue", mac: "52:54:00:aa:bb:cc" }] }));
    expect(problemOf(two)).toMatch(/^MacInUse: nics\[eth0\]: mac 52:54:00:aa:bb:cc is in use by instance team-a\/one;/);
    networks.put(networkFixture({ ipv4: { cidr: "10.30.0.0/24", dhcp: true } }, "green"));
    expect(
      firstOf(instances.put(instanceOn("three", { nics: [{ name: "eth0", network: "green", mac: "52:54:00:aa:bb:cc" }] }))).mac,
    ).toBe("52:54:00:aa:bb:cc");
  });

  it("names are one per network", () => {
    given(instanceOn("web"));
    const twin = {
      ...instanceOn("web", { created: 9 }),
      metadata: { ...instanceOn("web").metadata, uid: "another-uid", namespace: "team-a" },
    };
    expect(problemOf(twin)).toMatch(
      /^NameInUse: nics\[eth0\]: the name web.blue.team-a.internal is that of instance team-a\/web; rename this one$/,
    );
  });
});

describe("networks", () => {
  it("one that is missing is named, and its coming tells who waits", () => {
    const web = instances.put(instanceOn("web", { nics: [{ name: "eth0", network: "red" }] }));
    expect(problemOf(web)).toBe(
      "NetworkNotFound: nics[eth0]: there is no Network team-a/red; create it, or name another in nics[eth0].network",
    );
    networks.put(networkFixture({ ipv4: { cidr: "10.50.0.0/24", dhcp: true } }, "red"));
    expect(woken).toEqual(["team-a/web"]);
    expect(firstOf(web).ipv4).toMatch(/^10\.50\.0\./);
  });

  it("one that is being deleted takes nobody new, and keeps whom it has", () => {
    const [nic] = given(instanceOn("web"));
    const blue = networks.get({ namespace: "team-a", name: "blue" });
    if (blue) networks.put({ ...blue, metadata: { ...blue.metadata, deletionTimestamp: "2026-01-02T00:00:00Z" } });
    expect(problemOf(instances.put(instanceOn("new")))).toMatch(/^NetworkDeleting: /);
    expect(nicsOf(instances.get({ namespace: "team-a", name: "web" }) ?? instanceOn("web"))).toEqual([nic]);
  });

  it("one made anew with other addresses gives new ones", () => {
    const [nic] = given(instanceOn("web"));
    networks.put(networkFixture({ ipv4: { cidr: "10.60.0.0/24", dhcp: true } }));
    const again = firstOf(instances.get({ namespace: "team-a", name: "web" }) ?? instanceOn("web"));
    expect(again.ipv4).toMatch(/^10\.60\.0\./);
    expect(again.ipv6).toBeUndefined();
    expect(again.mac).toBe(nic?.mac);
  });
});

describe("release", () => {
  it("frees what was given and never written", () => {
    const web = instanceOn("web", withIp("10.10.0.20"));
    nicsOf(web);
    addresses.release(web.metadata.uid);
    addresses.release(web.metadata.uid);
    expect(firstOf(instances.put(instanceOn("next", { created: 9, ...withIp("10.10.0.20") }))).ipv4).toBe("10.10.0.20");
  });
});
