import { beforeEach, describe, expect, it } from "vitest";
import { FakeClock, type Change, type KubeObject } from "../kube/index.ts";
import { RECENT_MS, Recent } from "./recent.ts";

const object = (resourceVersion: string, uid = "u"): KubeObject => ({
  apiVersion: "v1",
  kind: "Thing",
  metadata: { name: "a", namespace: "n", uid, resourceVersion },
});
const key = { namespace: "n", name: "a" };

let cached: KubeObject | undefined;
let tell: (change: Change) => void;
let clock: FakeClock;
let recent: Recent<KubeObject>;

const shows = (now: KubeObject | undefined, old = cached) => {
  cached = now;
  tell({ key, ...(old && { old }), ...(now && { now }) });
};

beforeEach(() => {
  cached = undefined;
  clock = new FakeClock();
  recent = new Recent(
    {
      get: () => cached,
      onChange: (fn) => {
        tell = fn;
        return () => undefined;
      },
    },
    clock,
  );
});

describe("Recent", () => {
  it("shows what was written until the cache has it", () => {
    shows(object("5"));
    recent.put(object("7"));
    expect(recent.get(key)?.metadata.resourceVersion).toBe("7");
    shows(object("6"));
    expect(recent.get(key)?.metadata.resourceVersion).toBe("7");
    shows(object("10"));
    expect(recent.get(key)?.metadata.resourceVersion).toBe("10");
    expect(recent.written(key)).toBeUndefined();
  });

  it("compares versions as numbers, and does not keep what is older than the cache", () => {
    shows(object("10"));
    recent.put(object("9"));
    expect(recent.get(key)?.metadata.resourceVersion).toBe("10");
  });

  it("lets go of an object whose deletion is seen", () => {
    recent.put(object("7"));
    shows(undefined, object("7"));
    expect(recent.get(key)).toBeUndefined();
  });

  it("keeps what was written over the deletion of an earlier object of that name", () => {
    recent.put(object("7", "new"));
    shows(undefined, object("3", "old"));
    expect(recent.get(key)?.metadata.uid).toBe("new");
  });

  it("takes a change of our own making, at the same version", () => {
    shows(object("7"));
    recent.put({ ...object("7"), kind: "Going" });
    expect(recent.get(key)?.kind).toBe("Going");
  });

  it("believes the cache where versions cannot be compared", () => {
    recent.put(object("7"));
    shows(object("abc"));
    recent.put(object("xyz"));
    expect(recent.get(key)?.metadata.resourceVersion).toBe("abc");
  });

  it("believes the cache after a while: an object that was made and deleted unseen never shows up", () => {
    recent.put(object("7"));
    clock.freeze(RECENT_MS);
    expect(recent.get(key)).toBeDefined();
    clock.freeze(1);
    expect(recent.get(key)).toBeUndefined();
  });

  it("takes a new object of the same name for what it is", () => {
    recent.put(object("7", "old"));
    shows(object("9", "new"));
    expect(recent.get(key)?.metadata.uid).toBe("new");
  });
});
