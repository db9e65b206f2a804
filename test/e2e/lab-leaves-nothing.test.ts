/** The lab takes away all it made, also when it was killed half way: by an inventory of the machine before and after. */
import { mkdir, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { execa, ExecaError } from "execa";
import { afterAll, beforeAll, expect, test } from "vitest";
import { describeLab, type Lab } from "../../hack/lab/identity.ts";
import { concerning, describe, differences, takeInventory, type Inventory } from "../../hack/lab/inventory.ts";

const checkout = join(import.meta.dirname, "..", "..");
/** A lab of its own beside the one that the other tests use. */
const env = { DROVER_LAB_NAME: "leaves-nothing", BARE: "1" };
const lab: Lab = describeLab(checkout, { ...process.env, ...env });
/** What a thing of this lab is called, or lies in, or is addressed by. DROVER_ALONE=1, where nothing else runs, makes all differences count. */
const marks = [lab.id, lab.state, `${lab.subnet.split(".").slice(0, 2).join(".")}.`];
const alone = process.env["DROVER_ALONE"] === "1";

let before: Inventory;

const take = (): Promise<Inventory> => takeInventory([lab.cache, checkout]);

const left = async (): Promise<string[]> => {
  const found = differences(before, await take());
  return (alone ? found : concerning(found, marks)).map(describe);
};

const command = (name: string) =>
  execa(process.execPath, [join(checkout, "hack", "lab", "main.ts"), name], {
    env,
    timeout: 300_000,
    all: true,
    stdin: "ignore",
  });

const takeDown = async (): Promise<void> => void (await command("down"));

beforeAll(async () => {
  await takeDown();
  before = await take();
});
afterAll(takeDown);

test("up and down leave nothing, also of what a node attached and never let go; and up really made something", async () => {
  await command("up");
  const made = new Set(concerning(differences(before, await take()), marks).map((one) => one.kind));
  expect([...made].sort()).toEqual(
    expect.arrayContaining(["cgroup", "file", "link", "loop", "mount", "namespace", "process", "route"]),
  );
  const attach = "truncate -s 8M /var/lib/drover/left.img && losetup --find --show /var/lib/drover/left.img";
  const inNode = await execa(process.execPath, [join(checkout, "hack", "lab", "main.ts"), "in-node", "n2", "sh", "-c", attach], {
    env,
  });
  const loop = inNode.stdout.trim();
  const attached = async (): Promise<boolean> => (await execa("losetup", ["-a"])).stdout.includes(`${loop}:`);
  expect(await attached()).toBe(true);
  await takeDown();
  expect(await attached()).toBe(false);
  expect(await left()).toEqual([]);
});

/** Kills `up` when a line of its output matches, `later` milliseconds after it. */
const killUp = async (line: RegExp, later: number, signal: NodeJS.Signals): Promise<void> => {
  const running = command("up");
  let timer: NodeJS.Timeout | undefined;
  running.all.on("data", (text: Buffer) => {
    if (timer === undefined && line.test(text.toString())) timer = setTimeout(() => running.kill(signal), later);
  });
  const killed = await running.then(
    () => false,
    (error: unknown) => error instanceof ExecaError && error.signal === signal,
  );
  expect(killed, "up was to be killed before its end").toBe(true);
};

test.each<[string, RegExp, number, NodeJS.Signals]>([
  ["as the network is made", /helm|network|binar/, 0, "SIGKILL"],
  ["just after the network", /network/, 50, "SIGKILL"],
  ["while the control plane starts", /network/, 1_000, "SIGINT"],
  ["when the nodes start", /control plane: /, 0, "SIGKILL"],
  ["while the nodes start", /control plane: /, 250, "SIGINT"],
  ["when kubelets register", /nodes started: /, 100, "SIGKILL"],
])("killed %s, down leaves nothing", async (_, line, later, signal) => {
  await killUp(line, later, signal);
  await takeDown();
  expect(await left()).toEqual([]);
});

test("killed half way, a second up repairs", async () => {
  await killUp(/control plane: /, 300, "SIGKILL");
  const { all } = await command("up");
  expect(all).toContain("ready:");
  await takeDown();
  expect(await left()).toEqual([]);
});

test("the inventory sees a leak of every kind", async () => {
  const mark = `leak-${lab.id}`;
  const place = join("/tmp", mark);
  const sysctl = "/proc/sys/net/ipv4/ipfrag_time";
  const undo: (() => Promise<unknown>)[] = [];
  const run = (program: string, ...args: string[]) => execa(program, args, { timeout: 20_000, stdin: "ignore" });
  try {
    undo.push(() => rm(place, { recursive: true, force: true }));
    await mkdir(place);
    await writeFile(join(place, "disk.img"), Buffer.alloc(1 << 20));

    const idle = [process.execPath, "-e", "setInterval(() => {}, 1e6)", mark];
    for (const [program = "", ...args] of [idle, ["unshare", "--net", "--mount", ...idle]]) {
      const running = execa(program, args, { stdio: "ignore", reject: false });
      undo.push(async () => running.kill("SIGKILL") && (await running));
    }

    undo.push(() => run("umount", place));
    await run("mount", "-t", "tmpfs", mark, place);
    await writeFile(join(place, "disk.img"), Buffer.alloc(1 << 20));
    const { stdout: loop } = await run("losetup", "--find", "--show", join(place, "disk.img"));
    undo.push(() => run("losetup", "--detach", loop));

    undo.push(() => run("ip", "link", "del", `lk-${lab.id}`));
    await run("ip", "link", "add", `lk-${lab.id}`, "type", "veth", "peer", "name", `lp-${lab.id}`);
    await run("ip", "link", "set", `lk-${lab.id}`, "up");
    await run("ip", "route", "add", lab.subnet, "dev", `lk-${lab.id}`);

    const [hierarchy = ""] = (await import("../../hack/lab/cgroups.ts").then(({ hierarchies }) => hierarchies())).slice(-1);
    undo.push(() =>
      rm(join(hierarchy, mark), { recursive: false, force: true }).catch(() => run("rmdir", join(hierarchy, mark))),
    );
    await mkdir(join(hierarchy, mark));

    const { stdout: value } = await run("cat", sysctl);
    undo.push(() => writeFile(sysctl, value));
    await writeFile(sysctl, String(Number(value) + 1));

    undo.push(() => run("iptables", "-w", "-D", "INPUT", "-s", lab.subnet, "-j", "ACCEPT"));
    await run("iptables", "-w", "-A", "INPUT", "-s", lab.subnet, "-j", "ACCEPT");

    const kinds = new Set(concerning(differences(before, await take()), marks).map((one) => one.kind));
    const expected = ["cgroup", "file", "firewall", "link", "loop", "mount", "namespace", "process", "route", "sysctl"];
    expect([...kinds].sort()).toEqual(expect.arrayContaining(expected));
  } finally {
    for (const step of undo.reverse()) await step();
  }
  expect(await left()).toEqual([]);
});
