/** An operator in the shape of @dot-i/k8s-operator, on a real API server. */
import { writeFile } from "node:fs/promises";
import path from "node:path";
import type { ResourceEvent } from "@dot-i/k8s-operator";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { KubeClient, resource, silentLogger, type KubeObject } from "../../../kube/index.ts";
import { OperatorProcess } from "../../../kube/operator.ts";
import { eventually, restartApiServer, startWorld, type World } from "./world.ts";

interface Sheep extends KubeObject {
  spec?: { name?: string };
  status?: { woolly?: boolean; seen?: string };
}
const sheep = resource<Sheep>("farm.example.com", "v1", "sheep", "Sheep");
const key = (name: string) => ({ namespace: "default", name });
const one = (name: string): Sheep => ({ apiVersion: "farm.example.com/v1", kind: "Sheep", metadata: key(name), spec: { name } });
const CRD = `
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: sheep.farm.example.com}
spec:
  group: farm.example.com
  scope: Namespaced
  names: {kind: Sheep, plural: sheep}
  versions:
  - name: v1
    served: true
    storage: true
    subresources: {status: {}}
    schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}
`;
const FINALIZER = "farm.example.com/ours";

let world: World;
let crdFile: string;
beforeAll(async () => {
  world = await startWorld();
  crdFile = path.join(world.plane.directory, "crd.yaml");
  await writeFile(crdFile, CRD);
});
afterAll(() => world?.plane.stop());

/** Shears sheep; the first time it is asked for one, its hands slip. */
class Shepherd extends OperatorProcess {
  readonly seen: string[] = [];
  readonly failFirst = new Set<string>();
  cleanUps = 0;
  failCleanUps = 0;

  protected override async init(): Promise<void> {
    const { group, versions, plural } = await this.registerCustomResourceDefinition(crdFile);
    await eventually(async () => {
      if ((await this.client.discover(group, versions[0]?.name ?? "")).length === 0) throw new Error("not served yet");
    });
    await this.watchResource(group, "v1", plural, (event) => this.#look(event));
  }

  async #look(event: ResourceEvent): Promise<void> {
    const { name } = event.meta;
    this.seen.push(`${event.type} ${name}`);
    if (this.failFirst.delete(name)) throw new Error("slipped");
    if (await this.handleResourceFinalizer(event, FINALIZER, () => this.#cleanUp())) return;
    const type: string = event.type;
    if (type === "DELETED") return;
    await this.setResourceStatus(event.meta, { woolly: false, seen: (event.object as Sheep).spec?.name });
  }

  #cleanUp(): Promise<void> {
    this.cleanUps++;
    return this.cleanUps <= this.failCleanUps ? Promise.reject(new Error("the barn is locked")) : Promise.resolve();
  }

  begin(): { stop: AbortController; done: Promise<void> } {
    const stop = new AbortController();
    return { stop, done: this.run(stop.signal) };
  }
}

const make = () =>
  new Shepherd({
    client: KubeClient.fromKubeconfig(world.kubeconfig, { deadlineMs: 5_000 }),
    logger: silentLogger,
    manager: "shepherd",
  });
const get = (name: string) => world.client.get(sheep, key(name));

describe("an operator process", () => {
  it("sets finalizer and status, tries again after an error, cleans up before the object goes", async () => {
    const shepherd = make();
    shepherd.failFirst.add("dolly");
    shepherd.failCleanUps = 2;
    const { stop, done } = shepherd.begin();
    await eventually(() => world.client.create(sheep, one("dolly")));
    await eventually(async () => expect((await get("dolly"))?.status).toEqual({ woolly: false, seen: "dolly" }));
    expect((await get("dolly"))?.metadata.finalizers).toEqual([FINALIZER]);
    // The event that failed came again.
    expect(shepherd.seen.filter((line) => line.endsWith("dolly")).length).toBeGreaterThanOrEqual(3);
    await world.client.delete(sheep, key("dolly"));
    await eventually(async () => expect(await get("dolly")).toBeUndefined());
    // Twice it failed and the object was kept; the third time it was let go.
    expect(shepherd.cleanUps).toBe(3);
    await eventually(() => expect(shepherd.seen.at(-1)).toBe("DELETED dolly"));
    stop.abort();
    await done;
  });

  it("lives on when the API server is restarted, and ends in good order", async () => {
    const shepherd = make();
    const { stop, done } = shepherd.begin();
    await eventually(() => world.client.create(sheep, one("before")));
    await eventually(async () => expect((await get("before"))?.status?.woolly).toBe(false));
    await restartApiServer(world);
    await eventually(() => world.client.create(sheep, one("after")));
    await eventually(async () => expect((await get("after"))?.status?.woolly).toBe(false));
    stop.abort();
    await expect(done).resolves.toBeUndefined();
  });

  it("an error of init or of its work ends it with that error", async () => {
    class Broken extends OperatorProcess {
      protected override init(): Promise<void> {
        this.work("part", () => Promise.reject(new Error("a part broke")));
        this.work(
          "other",
          (signal) => new Promise((resolve) => signal.addEventListener("abort", () => resolve(), { once: true })),
        );
        return Promise.resolve();
      }
    }
    const options = { client: world.client, logger: silentLogger, manager: "x" };
    await expect(new Broken(options).run(new AbortController().signal)).rejects.toThrow("a part broke");
    class NoSuchKind extends OperatorProcess {
      protected override init(): Promise<void> {
        return this.watchResource("farm.example.com", "v1", "goats", () => Promise.resolve());
      }
    }
    await expect(new NoSuchKind(options).run(new AbortController().signal)).rejects.toThrow(
      "the API server serves no goats in farm.example.com/v1",
    );
  });
});
