/** QEMU's own start, with nothing of Drover around it: what a start through Drover is compared with. */
import { join } from "node:path";
import { createInterface } from "node:readline";
import { execa } from "execa";
import type { Instance } from "../../crds/instance.ts";
import { inNode, lab } from "../lab/index.ts";
import { nodeNamed } from "../lab/identity.ts";
import { inNodeCommand } from "../lab/node/node.ts";
import { bareArguments } from "./bare-arguments.ts";

const TAP = "bench0";
const script = join(import.meta.dirname, "bare.sh");

export interface Bare {
  /** Milliseconds from QEMU's exec to its monitor's word that the guest runs. */
  start(): Promise<number>;
  remove(): Promise<void>;
}

/** Makes ready to start, on its node, the machine of a guest that runs there; its disk is a clone of the guest's image. */
export const bareLike = async (of: Instance, pool: string): Promise<Bare> => {
  const { nodeName, guest } = of.status ?? {};
  if (nodeName === undefined || guest?.pid === undefined || guest.runtimeVersion === undefined)
    throw new Error(`${of.metadata.name} does not run: ${JSON.stringify(of.status)}`);
  const node = (command: string, ...args: string[]): Promise<string> => inNode(nodeName, command, args);
  const argv = (await node("cat", `/proc/${guest.pid}/cmdline`)).split("\0").filter((one) => one !== "");
  const home = `/var/lib/drover/pools/${pool}`;
  const [image] = (await node("ls", `${home}/images`)).split("\n").filter((file) => file.endsWith(".raw"));
  if (image === undefined) throw new Error(`pool ${pool} on ${nodeName} has no image`);
  const disk = `${home}/bench-bare.raw`;
  await node("cp", "--reflink=auto", `${home}/images/${image}`, disk);
  await node("truncate", "--size=1G", disk);
  const runtime = `/var/lib/drover/runtime/${guest.runtimeVersion}`;
  const command = ["sh", script, runtime, disk, TAP, ...bareArguments(argv, TAP)];

  const start = async (): Promise<number> => {
    const [program = "", ...args] = await inNodeCommand(nodeNamed(lab(), nodeName), command);
    const qemu = execa(program, args, { stdin: "pipe", buffer: { stdout: false }, reject: false, timeout: 60_000 });
    let begun: number | undefined;
    let took: number | undefined;
    for await (const line of createInterface({ input: qemu.stdout })) {
      if (line === "start") begun = performance.now();
      else if (line.startsWith('{"QMP"')) qemu.stdin.write('{"execute":"qmp_capabilities"}\n{"execute":"query-status"}\n');
      else if (/"running": ?true/.test(line) && begun !== undefined) {
        took = performance.now() - begun;
        qemu.stdin.write('{"execute":"quit"}\n');
      }
    }
    const { stderr } = await qemu;
    if (took === undefined) throw new Error(`QEMU alone does not start: ${stderr}`);
    return took;
  };
  const remove = async (): Promise<void> => {
    await node("rm", "-f", disk);
    await node("sh", "-c", `! ip link show ${TAP} >/dev/null 2>&1 || ip link delete ${TAP}`);
  };
  return { start, remove };
};
