import { beforeEach, expect, it } from "vitest";
import type { GuestStatus, Instance } from "../../crds/instance.ts";
import { FakeClock, type Change } from "../../kube/index.ts";
import { instance } from "./fixtures.ts";
import { firstLook } from "./first-look.ts";

const guest = (uid: string, state: GuestStatus["state"]): Instance => ({
  ...instance(),
  metadata: { ...instance().metadata, uid },
  status: { guest: { state } },
});

let clock: FakeClock;
let listed: Instance[];
let told: Set<string>;
let tell: (uid: string) => void;
let change: (change: Change<Instance>) => void;
let stop: AbortController;
let done: boolean;

/** Begins, with these in the API. */
async function begin(...there: Instance[]): Promise<void> {
  listed = there;
  const instances = {
    synced: Promise.resolve(),
    list: () => listed,
    onChange: (fn: typeof change) => {
      change = fn;
      return () => undefined;
    },
  };
  const reporter = {
    isTold: (uid: string) => told.has(uid),
    onTold: (fn: typeof tell) => {
      tell = fn;
      return () => undefined;
    },
  };
  void firstLook({ instances, reporter, clock }, stop.signal).then(() => {
    done = true;
  });
  await clock.advance(0);
}

beforeEach(() => {
  clock = new FakeClock();
  told = new Set();
  stop = new AbortController();
  done = false;
});

it("waits for each guest that is said to run", async () => {
  await begin(guest("a", "Running"), guest("b", "Running"), guest("c", "Stopped"));
  expect(done).toBe(false);
  tell("b");
  tell("b");
  await clock.advance(0);
  expect(done).toBe(false);
  tell("a");
  await clock.advance(0);
  expect(done).toBe(true);
  expect(clock.pending).toBe(0);
});

it("does not wait for one that was looked at before the list was read, nor for one that goes", async () => {
  told.add("a");
  await begin(guest("a", "Running"), guest("b", "Running"));
  change({ key: { name: "web" }, old: guest("b", "Running") });
  await clock.advance(0);
  expect(done).toBe(true);
});

it("is done where nothing runs", async () => {
  await begin(guest("c", "Failed"));
  expect(done).toBe(true);
});

it("does not wait for ever, nor longer than the agent lives", async () => {
  await begin(guest("a", "Running"));
  await clock.advance(29_999);
  expect(done).toBe(false);
  await clock.advance(1);
  expect(done).toBe(true);
  done = false;
  await begin(guest("a", "Running"));
  stop.abort();
  await clock.advance(0);
  expect(done).toBe(true);
});
