import { describe, expect, it } from "vitest";
import type { HostStatus } from "../../crds/host.ts";
import { ApiError, FakeClock, silentLogger, type KubeClient } from "../../kube/index.ts";
import { HostWriter } from "./writer.ts";

const status = (more: Partial<HostStatus> = {}): HostStatus => ({ accelerator: "TCG", pools: [], instances: 0, ...more });

function bench() {
  const clock = new FakeClock();
  const writes: { subresource: string | undefined; status: HostStatus | undefined; at: number }[] = [];
  const failures: Error[] = [];
  const apply = async (_: unknown, object: { status?: HostStatus }, options: { subresource?: string }): Promise<unknown> => {
    const failure = failures.shift();
    if (failure) throw failure;
    writes.push({ subresource: options.subresource, status: object.status, at: clock.monotonic() });
    return object;
  };
  const client = { apply: apply as KubeClient["apply"] };
  const writer = new HostWriter({ client, nodeName: "n1", nodeUid: () => "u", clock, log: silentLogger });
  return { clock, writes, failures, writer };
}

const host = (said: HostStatus) => ({
  apiVersion: "drover.dev/v1alpha1",
  kind: "Host" as const,
  metadata: { name: "n1", uid: "h", resourceVersion: "1", generation: 1, creationTimestamp: "" },
  spec: undefined,
  status: said,
});

describe("HostWriter", () => {
  it("makes the object and its status, once", async () => {
    const { clock, writes, writer } = bench();
    writer.seen(undefined);
    writer.say(status());
    await clock.advance(0);
    expect(writes.map(({ subresource }) => subresource)).toEqual([undefined, "status"]);
    writer.say(status());
    await clock.advance(60_000);
    expect(writes.length).toBe(2);
  });

  it("writes nothing after a restart when the object says it already", async () => {
    const { clock, writes, writer } = bench();
    writer.seen(host(status()));
    writer.say(status());
    await clock.advance(60_000);
    expect(writes).toEqual([]);
  });

  it("writes at most once a second, the last word", async () => {
    const { clock, writes, writer } = bench();
    writer.seen(host(status()));
    for (let i = 0; i < 50; i += 1) {
      writer.say(status({ cpuModel: `m${i}` }));
      await clock.advance(50);
    }
    await clock.advance(2_000);
    expect(writes.length).toBeLessThanOrEqual(4);
    expect(writes.at(-1)?.status?.cpuModel).toBe("m49");
  });

  it("lets figures wait, and takes them along with the next word", async () => {
    const { clock, writes, writer } = bench();
    writer.seen(host(status()));
    writer.say(status({ instances: 1 }));
    await clock.advance(10_000);
    expect(writes).toEqual([]);
    writer.say(status({ instances: 2, poolNames: "local" }));
    await clock.advance(0);
    expect(writes.map((write) => write.status?.instances)).toEqual([2]);
    writer.say(status({ instances: 3, poolNames: "local" }));
    await clock.advance(15_000);
    expect(writes.map((write) => write.status?.instances)).toEqual([2, 3]);
  });

  it("tries again, makes the object anew when it is gone, and says what was said meanwhile", async () => {
    const { clock, writes, failures, writer } = bench();
    writer.seen(host(status()));
    failures.push(new Error("away"), new ApiError(404, "NotFound", "gone"));
    writer.say(status({ cpuModel: "a" }));
    await clock.advance(0);
    writer.say(status({ cpuModel: "b" }));
    await clock.advance(30_000);
    expect(writes.map(({ subresource, status: said }) => [subresource, said?.cpuModel])).toEqual([
      [undefined, undefined],
      ["status", "b"],
    ]);
  });

  it("writes it again when somebody deleted it", async () => {
    const { clock, writes, writer } = bench();
    writer.seen(host(status()));
    writer.seen(undefined);
    await clock.advance(2_000);
    expect(writes.map(({ subresource }) => subresource)).toEqual([undefined, "status"]);
  });
});
