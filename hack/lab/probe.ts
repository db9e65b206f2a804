/** An observer on one of Drover's networks that is no instance: a network namespace in a node, with a port of its own in OVN. */
import { createHash } from "node:crypto";
import { createInterface } from "node:readline";
import { join } from "node:path";
import { execa } from "execa";
import { nodeNamed } from "./identity.ts";
import { lab, inNode } from "./index.ts";
import { inNodeCommand } from "./node/node.ts";
import { LabError, run } from "./run.ts";

export interface ProbeWish {
  node: string;
  /** Logical switch of the network. */
  logicalSwitch: string;
  /** With the prefix length, such as 10.10.0.250/24. */
  ipv4?: string;
  ipv6?: string;
  gateway?: string;
}

export interface Silence {
  sent: number;
  received: number;
  /** Longest time without an answer, in milliseconds; packets leave every 10 ms. */
  silenceMs: number;
  /** When that began, in ms since 1970; 0 where there was none. */
  silentFrom: number;
}

export interface EchoLog {
  /** Stops sending, and gives what was seen. */
  stop(): Promise<Silence>;
}

export interface Probe {
  exec(command: string[]): Promise<string>;
  /** Body of a GET. Given up after so many seconds, where that is said. */
  fetch(url: string, seconds?: number): Promise<string>;
  /** Begins to send echoes; resolves once the first answer has come. */
  echo(address: string): Promise<EchoLog>;
  remove(): Promise<void>;
}

const RELEASE = "drover-system";
const talkScript = join(import.meta.dirname, "scripts", "probe-talk.ts");

const kubectl = (args: string[]): Promise<string> => {
  const up = lab();
  return run(up.kubectl, ["--kubeconfig", up.kubeconfig, "-n", RELEASE, ...args], { deadlineMs: 60_000 });
};

const northbound = (args: string[]): Promise<string> =>
  kubectl(["exec", "ovn-central-0", "-c", "nb", "--", "ovn-nbctl", "--db=unix:/run/ovn/ovnnb_db.sock", "--timeout=20", ...args]);

const controllerPod = async (node: string): Promise<string> => {
  const name = await kubectl([
    "get",
    "pods",
    "-l",
    "app.kubernetes.io/component=ovn-controller",
    `--field-selector=spec.nodeName=${node},status.phase=Running`,
    "-o",
    "jsonpath={.items[0].metadata.name}",
  ]);
  if (name === "") throw new LabError(`no ovn-controller runs on ${node}`);
  return name;
};

const vswitch = async (node: string, args: string[]): Promise<string> =>
  kubectl(["exec", await controllerPod(node), "--", "ovs-vsctl", "--timeout=20", ...args]);

/** Makes a probe; `remove` undoes all of it. Ends with the node, whose namespace holds it. */
export const makeProbe = async (wish: ProbeWish): Promise<Probe> => {
  const hash = createHash("sha256").update(JSON.stringify(wish)).digest("hex");
  const name = `probe${hash.slice(0, 8)}`;
  const mac = `02:50:${[0, 2, 4, 6].map((at) => hash.slice(at, at + 2)).join(":")}`;
  const addresses = [wish.ipv4, wish.ipv6].filter((address) => address !== undefined);
  const plain = addresses.map((address) => address.split("/")[0] ?? address);
  const inside = (command: string[]): string[] => ["ip", "netns", "exec", name, ...command];
  const node = (command: string, ...args: string[]): Promise<string> => inNode(wish.node, command, args);

  await northbound([
    "--may-exist",
    "lsp-add",
    wish.logicalSwitch,
    name,
    "--",
    "lsp-set-addresses",
    name,
    `${mac} ${plain.join(" ")}`,
  ]);
  await node("ip", "netns", "add", name);
  await node("ip", "link", "add", name, "mtu", "1442", "type", "veth", "peer", "name", "eth0", "netns", name);
  await node("ip", "link", "set", name, "up");
  const [ip = "", ...prefix] = inside(["ip"]);
  const within = (...args: string[]): Promise<string> => node(ip, ...prefix, ...args);
  await within("link", "set", "eth0", "address", mac, "mtu", "1442", "up");
  await within("link", "set", "lo", "up");
  for (const address of addresses)
    await within("addr", "add", address, "dev", "eth0", ...(address.includes(":") ? ["nodad"] : []));
  if (wish.gateway !== undefined) await within("route", "add", "default", "via", wish.gateway);
  // The userspace datapath does not finish checksums that the kernel left to hardware.
  await node("ip", "netns", "exec", name, "ethtool", "-K", "eth0", "tx", "off");
  await node("ethtool", "-K", name, "tx", "off");
  await vswitch(wish.node, [
    "--may-exist",
    "add-port",
    "br-int",
    name,
    "--",
    "set",
    "Interface",
    name,
    `external_ids:iface-id=${name}`,
  ]);
  await kubectl([
    "exec",
    await controllerPod(wish.node),
    "--",
    "ovs-vsctl",
    "--timeout=20",
    "wait-until",
    "Interface",
    name,
    "external_ids:ovn-installed=true",
  ]);

  const exec = async (command: string[]): Promise<string> => {
    const [program = "", ...args] = inside(command);
    return node(program, ...args);
  };
  return {
    exec,
    fetch: (url, seconds) =>
      exec([...(seconds === undefined ? [] : ["timeout", String(seconds)]), process.execPath, talkScript, "fetch", url]),
    echo: async (address) => {
      const [program = "", ...args] = await inNodeCommand(
        nodeNamed(lab(), wish.node),
        inside([process.execPath, talkScript, "echo", address]),
      );
      const talk = execa(program, args, { stdin: "pipe", stderr: "inherit", buffer: false, timeout: 600_000 });
      const lines = createInterface({ input: talk.stdout })[Symbol.asyncIterator]();
      const first = await Promise.race([
        lines.next(),
        new Promise<undefined>((resolve) => setTimeout(resolve, 30_000, undefined)),
      ]);
      if (first?.value !== "answers") {
        talk.kill("SIGKILL");
        await talk.catch(() => undefined);
        throw new LabError(`${address} does not answer ${name} on ${wish.node}`);
      }
      return {
        stop: async () => {
          talk.stdin.end();
          const last = await lines.next();
          await talk;
          return JSON.parse(String(last.value)) as Silence;
        },
      };
    },
    remove: async () => {
      await vswitch(wish.node, ["--if-exists", "del-port", "br-int", name]);
      await node("ip", "link", "del", name);
      await node("ip", "netns", "del", name);
      await northbound(["--if-exists", "lsp-del", name]);
    },
  };
};
