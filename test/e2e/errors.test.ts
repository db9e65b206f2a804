/** What a user gets wrong: a sentence that says what to change, and all is well once it is changed. */
import { createHash, randomBytes } from "node:crypto";
import { writeFile } from "node:fs/promises";
import path from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { inNode, lab } from "../../hack/lab/index.ts";
import type { Probe } from "../../hack/lab/probe.ts";
import {
  addressOf,
  ask,
  checkDisk,
  instance,
  observer,
  processOf,
  serveFile,
  statusWithin,
  OBSERVED_NETWORK,
} from "../../hack/kit/guest.ts";
import {
  apply,
  images,
  kubectl,
  namespaceManifest,
  networkManifest,
  poolManifest,
  refused,
  virtualMachine,
  waitFor,
  type TestImage,
} from "../../hack/kit/cluster.ts";

const NAMESPACE = "errors";
let tiny: TestImage;
let probe: Probe;

interface Condition {
  type: string;
  status: string;
  reason: string;
  message: string;
}

const conditionOf = async (name: string, type: string): Promise<Condition | undefined> =>
  (await instance(NAMESPACE, name)).status?.conditions?.find((condition) => condition.type === type);

/** Waits for a condition with a reason; gives its message. */
const saysWhy = async (name: string, type: string, reason: string, seconds = 90): Promise<string> => {
  await waitFor(`inst/${name}`, `jsonpath={.status.conditions[?(@.type=="${type}")].reason}=${reason}`, seconds, NAMESPACE);
  return (await conditionOf(name, type))?.message ?? "";
};

beforeAll(async () => {
  ({ tiny } = await images());
  await apply(namespaceManifest(NAMESPACE));
  await apply(poolManifest("local", "8Gi"), networkManifest(NAMESPACE, "net", OBSERVED_NETWORK));
  await waitFor("dpool/local", "condition=Ready");
  await waitFor("dnet/net", "condition=Ready", 60, NAMESPACE);
});

afterAll(async () => {
  await probe?.remove();
  await kubectl(["delete", "namespace", NAMESPACE, "--timeout=180s"], { seconds: 190 });
  await kubectl(["delete", "dpool/growing", "--timeout=60s"], { seconds: 70 });
});

test("an unknown network is named, and made it heals", async () => {
  await apply(virtualMachine(NAMESPACE, "early", { image: tiny, network: "later" }));
  expect(await saysWhy("early", "NetworkReady", "NetworkNotFound")).toMatch(/later/);
  await apply(networkManifest(NAMESPACE, "later", { ipv4: { cidr: "10.41.0.0/24" } }));
  await waitFor("inst/early", "condition=Ready", 120, NAMESPACE);
  await kubectl(["-n", NAMESPACE, "delete", "inst/early", "--timeout=60s"], { seconds: 70 });
});

test("an image with another checksum is refused, and leaves nothing", async () => {
  const wrong = { ...tiny, checksum: `sha256:${"1".repeat(64)}` };
  await apply(virtualMachine(NAMESPACE, "forged", { image: wrong, network: "net" }));
  expect(await saysWhy("forged", "ImageReady", "ChecksumMismatch")).toMatch(/sha256/);
  await kubectl(["-n", NAMESPACE, "delete", "inst/forged", "--timeout=60s"], { seconds: 70 });
});

test("an image server that has nothing heals when the image is there", async () => {
  // One that no node has: an image is known by its checksum, wherever it came from.
  const bytes = Buffer.concat([
    Buffer.from(await (await fetch((await images()).tinyRaw.url)).arrayBuffer()),
    randomBytes(1 << 20),
  ]);
  const checksum = `sha256:${createHash("sha256").update(bytes).digest("hex")}`;
  const url = `${lab().imageUrl}/${checksum.slice(7, 19)}.img`;
  await apply(virtualMachine(NAMESPACE, "late", { image: { url, checksum, virtualSizeBytes: bytes.length }, network: "net" }));
  expect(await saysWhy("late", "ImageReady", "ImageUnreachable")).toMatch(/404/);
  await serveFile(path.basename(url), (file) => writeFile(file, bytes));
  await waitFor("inst/late", "condition=Ready", 180, NAMESPACE);
  await kubectl(["-n", NAMESPACE, "delete", "inst/late", "--timeout=60s"], { seconds: 70 });
});

test("without room on any node it waits with the scheduler's own words", async () => {
  await apply(virtualMachine(NAMESPACE, "huge", { image: tiny, network: "net", spec: { memory: "4000Gi" } }));
  expect(await saysWhy("huge", "Scheduled", "Unschedulable")).toMatch(/Insufficient memory/);
  await kubectl(["-n", NAMESPACE, "delete", "inst/huge", "--timeout=60s"], { seconds: 70 });
});

test("a claim cannot be deleted by hand, nor evicted", async () => {
  await apply(virtualMachine(NAMESPACE, "held", { image: tiny, network: "net", node: "n2" }));
  await waitFor("inst/held", "condition=Ready", 120, NAMESPACE);
  const held = await instance(NAMESPACE, "held");
  const claim = held.status?.claim?.name ?? "";
  for (const more of [[], ["--grace-period=0", "--force"]]) {
    expect(await refused(["-n", NAMESPACE, "delete", "pod", claim, ...more])).toMatch(/instance/i);
  }
  expect(await processOf(await instance(NAMESPACE, "held"))).toBe(await processOf(held));
});

test("an address in use is refused to the younger instance, and given when it is free", async () => {
  const ipv4 = await addressOf(NAMESPACE, "held");
  const nics = [{ name: "eth0", network: "net", ipv4 }];
  await apply(virtualMachine(NAMESPACE, "second", { image: tiny, spec: { nics } }));
  expect(await saysWhy("second", "NetworkReady", "AddressInUse")).toContain(ipv4);
  await kubectl(["-n", NAMESPACE, "delete", "inst/held", "--timeout=60s"], { seconds: 70 });
  await waitFor("inst/second", "condition=Ready", 120, NAMESPACE);
  expect(await addressOf(NAMESPACE, "second")).toBe(ipv4);
  await kubectl(["-n", NAMESPACE, "delete", "inst/second", "--timeout=60s"], { seconds: 70 });
});

test("a pool grows under a writer, and does not shrink", async () => {
  await apply(poolManifest("growing", "1Gi"));
  await waitFor("dpool/growing", "condition=Ready");
  await apply(virtualMachine(NAMESPACE, "writer", { image: tiny, network: "net", pool: "growing", node: "n1" }));
  await waitFor("inst/writer", "condition=Ready", 180, NAMESPACE);
  const ip = await addressOf(NAMESPACE, "writer");
  probe = await observer({ node: "n3", namespace: NAMESPACE, network: "net" });
  const before = await statusWithin(probe, ip, 60);
  const filled = ask<{ ok: boolean; error: string }>(probe, ip, "/fill/64");
  await apply(poolManifest("growing", "2Gi"));
  await waitFor("dpool/growing", "jsonpath={.status.size}=6Gi", 60);
  expect(await filled).toEqual({ ok: true, error: "" });
  const after = await statusWithin(probe, ip, 60);
  expect(after.bootId).toBe(before.bootId);
  expect((await checkDisk(await instance(NAMESPACE, "writer"), after.lastAcked)).problem).toBeUndefined();
  const manifest = JSON.stringify(poolManifest("growing", "1Gi"));
  expect(await refused(["apply", "-f", "-"], manifest)).toContain(
    "a pool cannot shrink (2Gi -> 1Gi); make a new pool and migrate to it",
  );
});

test("a guest that the memory limit killed says so, and is started again", async () => {
  const { status: was } = await instance(NAMESPACE, "writer");
  // The claim's own limit leaves room for QEMU; one that is hit stands for a QEMU that took more than it was measured to.
  const uid = was?.claim?.uid ?? "";
  const [group = ""] = (await inNode("n1", "find", ["/sys/fs/cgroup/memory/kubepods", "-path", `*${uid}/drover`])).split("\n");
  const used = Number(await inNode("n1", "cat", [`${group}/memory.usage_in_bytes`]));
  await inNode("n1", "tee", [`${group}/memory.limit_in_bytes`], { input: String(used + (32 << 20)) });
  // A guest that is killed answers no more, and nothing tells the one who asks.
  await ask(probe, await addressOf(NAMESPACE, "writer"), "/eat/150", 8).catch(() => undefined);
  await waitFor("inst/writer", "jsonpath={.status.guest.restarts}=1", 120, NAMESPACE);
  const events = await kubectl([
    "-n",
    NAMESPACE,
    "get",
    "events",
    "--field-selector=involvedObject.name=writer",
    "-o",
    "jsonpath={.items[*].reason}",
  ]);
  expect(events).toContain("MemoryLimit");
});
