/** What a lab is called and where it lies: all of it follows from the checkout's path, so that two checkouts never meet. */
import { createHash } from "node:crypto";
import { join } from "node:path";

/** One node of the lab: a set of namespaces that Kubernetes takes for a machine. */
export interface LabNode {
  name: string;
  /** Of eth0, on the lab's bridge. */
  address: string;
  podCidr: string;
  /** Below every cgroup hierarchy. */
  cgroup: string;
  /** File that holds the node's network namespace. */
  netns: string;
  /** What survives the node's power cuts. */
  state: string;
}

export interface Lab {
  id: string;
  checkout: string;
  /** Binaries, base images, packages: outside the tree, shared by all labs, never removed by `lab-down`. */
  cache: string;
  /** Everything this lab writes while it runs; removed by `lab-down`. */
  state: string;
  /** What users of the lab read: kubeconfig, images.json. */
  out: string;
  kubeconfig: string;
  /** Both the nodes' and the pods' addresses lie in it. */
  subnet: string;
  serviceCidr: string;
  /** First address of the services: the API server's, by a DNAT rule in every node. */
  serviceAddress: string;
  hub: { netns: string; cgroup: string; bridge: string; address: string };
  /** This machine's own end of a veth pair into the hub. */
  host: { link: string; address: string };
  apiPort: number;
  imagePort: number;
  /** Parent of all the lab's cgroups. */
  cgroup: string;
  nodes: LabNode[];
}

const NODES = 3;

/** Second octet of 10.x.0.0/16, away from the services' 10.96.0.0/16 and the tunnels' 10.97.0.0/24. */
const octet = (hash: string): number => 100 + (Number.parseInt(hash.slice(0, 8), 16) % 100);

/**
 * The lab that belongs to a checkout. Pure.
 * DROVER_CACHE and DROVER_STATE say where its files lie, DROVER_LAB_OCTET which 10.x.0.0/16 it takes. DROVER_LAB_NAME makes
 * another lab of the same checkout, for tests of the lab itself.
 */
export const describeLab = (checkout: string, env: Record<string, string | undefined>): Lab => {
  const other = env["DROVER_LAB_NAME"];
  const hash = createHash("sha256")
    .update(other === undefined ? checkout : `${checkout}\n${other}`)
    .digest("hex");
  const id = hash.slice(0, 6);
  const cache = env["DROVER_CACHE"] ?? "/var/cache/drover";
  const state = env["DROVER_STATE"] ?? `/var/tmp/drover-lab-${id}`;
  const out = other === undefined ? join(checkout, ".lab") : join(state, "out");
  const x = env["DROVER_LAB_OCTET"] === undefined ? octet(hash) : Number(env["DROVER_LAB_OCTET"]);
  if (!Number.isInteger(x) || x < 0 || x > 255 || x === 96 || x === 97) {
    throw new Error(`DROVER_LAB_OCTET is "${env["DROVER_LAB_OCTET"]}": give a number from 0 to 255, but not 96 or 97`);
  }
  const cgroup = `drover-${id}`;
  const nodes = Array.from({ length: NODES }, (_, i): LabNode => {
    const name = `n${i + 1}`;
    return {
      name,
      address: `10.${x}.0.${11 + i}`,
      podCidr: `10.${x}.${129 + i}.0/24`,
      cgroup: `${cgroup}/${name}`,
      netns: join(state, "netns", name),
      state: join(state, "nodes", name),
    };
  });
  return {
    id,
    checkout,
    cache,
    state,
    out,
    kubeconfig: join(out, "kubeconfig"),
    subnet: `10.${x}.0.0/16`,
    serviceCidr: "10.96.0.0/16",
    serviceAddress: "10.96.0.1",
    hub: { netns: join(state, "netns", "hub"), cgroup: `${cgroup}/hub`, bridge: "br0", address: `10.${x}.0.1` },
    host: { link: `dl-${id}`, address: `10.${x}.0.254` },
    apiPort: 6443,
    imagePort: 8080,
    cgroup,
    nodes,
  };
};

/** The lab of the checkout that this file lies in. */
export const thisLab = (): Lab => describeLab(join(import.meta.dirname, "..", ".."), process.env);

/** The lab's node of that name. Throws with the names there are. */
export const nodeNamed = (lab: Lab, name: string): LabNode => {
  const node = lab.nodes.find((one) => one.name === name);
  if (!node) throw new Error(`there is no node "${name}"; the lab has ${lab.nodes.map((one) => one.name).join(", ")}`);
  return node;
};
