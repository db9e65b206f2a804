import { describe, expect, it } from "vitest";
import { ApiError } from "./errors.ts";
import { ensureFinalizer, removeFinalizer } from "./finalizers.ts";
import { resource } from "./resources.ts";
import type { KubeObject } from "./types.ts";

const things = resource<KubeObject>("x", "v1", "things", "Thing");
const thing = (finalizers: string[], more: Partial<KubeObject["metadata"]> = {}): KubeObject => ({
  apiVersion: "x/v1",
  kind: "Thing",
  metadata: { namespace: "ns", name: "a", uid: "u", resourceVersion: "1", finalizers, ...more },
});

/** An API server with one object; `server` is what it has now, which may differ from what the caller saw. */
const setUp = (server: KubeObject | undefined) => {
  const state = { server, writes: 0 };
  const client = {
    get: async () => structuredClone(state.server),
    patchMerge: async (_: unknown, __: unknown, patch: KubeObject) => {
      if (!state.server) throw new ApiError(404, "NotFound", "gone");
      const { uid, resourceVersion, finalizers } = patch.metadata;
      if (uid !== state.server.metadata.uid || resourceVersion !== state.server.metadata.resourceVersion)
        throw new ApiError(409, "Conflict", "changed");
      state.writes++;
      state.server = thing(finalizers ?? [], { resourceVersion: `${resourceVersion}+` });
      return structuredClone(state.server);
    },
  };
  return { state, client: client as never };
};

describe("ensureFinalizer", () => {
  it.each([
    ["none yet", thing([]), ["ours"], 1],
    ["others' are kept, in order", thing(["theirs"]), ["theirs", "ours"], 1],
    ["there: no write", thing(["ours", "theirs"]), ["ours", "theirs"], 0],
    ["being deleted: too late", thing(["theirs"], { deletionTimestamp: "now" }), ["theirs"], 0],
  ])("%s", async (_, object, after, writes) => {
    const { state, client } = setUp(object);
    expect((await ensureFinalizer(client, things, object, "ours")).metadata.finalizers).toEqual(after);
    expect(state.writes).toBe(writes);
  });

  it("somebody wrote in between: theirs is kept", async () => {
    const { client } = setUp(thing(["theirs"], { resourceVersion: "2" }));
    expect((await ensureFinalizer(client, things, thing([]), "ours")).metadata.finalizers).toEqual(["theirs", "ours"]);
  });

  it("gone meanwhile is NotFound", async () => {
    const { client } = setUp(undefined);
    await expect(ensureFinalizer(client, things, thing([]), "ours")).rejects.toMatchObject({ isNotFound: true });
  });
});

describe("removeFinalizer", () => {
  it.each<[string, KubeObject, KubeObject | undefined, string[] | undefined]>([
    ["only ours goes", thing(["a", "ours", "b"]), thing(["a", "ours", "b"]), ["a", "b"]],
    ["stale view", thing(["ours"]), thing(["theirs", "ours"], { resourceVersion: "2" }), ["theirs"]],
    ["not there", thing(["a"]), thing(["a"]), ["a"]],
    ["gone", thing(["ours"]), undefined, undefined],
    ["another of the same name is left alone", thing(["ours"]), thing(["ours"], { uid: "u2", resourceVersion: "9" }), ["ours"]],
  ])("%s", async (_, seen, server, after) => {
    const { state, client } = setUp(server);
    await removeFinalizer(client, things, seen, "ours");
    expect(state.server?.metadata.finalizers).toEqual(after);
  });
});
