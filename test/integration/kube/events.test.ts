/** Events as a real API server takes them. */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { EventRecorder, FakeClock, resources, type KubeEvent } from "../../../kube/index.ts";
import { eventually, put, startWorld, type World } from "./world.ts";

let world: World;
beforeAll(async () => {
  world = await startWorld();
});
afterAll(() => world?.plane.stop());

const about = async (name: string): Promise<KubeEvent[]> =>
  (await world.client.list(resources.events, { namespace: "default" })).filter((event) => event.regarding?.name === name);

describe("events", () => {
  it("the same said often is one object with a count; different ones are objects of their own", async () => {
    const clock = new FakeClock(Date.now());
    const recorder = new EventRecorder(world.client, { controller: "drover.dev/test", instance: "me", clock });
    const map = await put(world.client, "a", "1");
    for (let n = 0; n < 5; n++) recorder.event(map, "Warning", "NoPool", "Schedule", "there is no pool fast");
    recorder.event(map, "Normal", "Started", "Start", "it runs");
    await eventually(async () => expect(await about("a")).toHaveLength(2));
    await clock.advance(60_000);
    const counts = async () => Object.fromEntries((await about("a")).map((event) => [event.reason, event.series?.count]));
    await eventually(async () => expect(await counts()).toEqual({ NoPool: 5, Started: undefined }));
    // The series goes on.
    recorder.event(map, "Warning", "NoPool", "Schedule", "there is no pool fast");
    await recorder.flush(60_000);
    await eventually(async () => expect(await counts()).toEqual({ NoPool: 6, Started: undefined }));
    expect((await about("a")).find((event) => event.reason === "NoPool")).toMatchObject({
      type: "Warning",
      action: "Schedule",
      note: "there is no pool fast",
      reportingController: "drover.dev/test",
      reportingInstance: "me",
      regarding: { kind: "ConfigMap", uid: map.metadata.uid },
    });
  });

  it("a series whose object is gone is written anew", async () => {
    const clock = new FakeClock(Date.now());
    const recorder = new EventRecorder(world.client, { controller: "drover.dev/test", instance: "me", clock });
    const map = await put(world.client, "b", "1");
    const say = () => recorder.event(map, "Normal", "Tick", "Tick", "tick");
    say();
    await eventually(async () => expect(await about("b")).toHaveLength(1));
    for (const { metadata } of await about("b"))
      await world.client.delete(resources.events, { namespace: "default", name: metadata.name });
    expect(await about("b")).toEqual([]);
    say();
    await clock.advance(60_000);
    await eventually(async () => expect((await about("b")).map((event) => event.series?.count)).toEqual([2]));
  });

  it("about an object of no namespace lie in default", async () => {
    const recorder = new EventRecorder(world.client, { controller: "drover.dev/test", instance: "me" });
    const namespace = await world.client.get(resources.namespaces, { name: "kube-public" });
    if (!namespace) throw new Error("there is no namespace kube-public");
    recorder.event(namespace, "Normal", "Seen", "Look", "there it is");
    await recorder.flush(10_000);
    expect(await about("kube-public")).toHaveLength(1);
  });
});
