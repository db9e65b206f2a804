/** What an instance costs the API server, beside what a bare pod costs it. */
import { kubectl } from "../kit/cluster.ts";
import { stringify } from "yaml";
import { byDrover, tally, writesBetween } from "./audit.ts";
import { isReady, isRunning, NAMESPACE, NODE, type World } from "./world.ts";

/** Who kubectl is in the lab. */
const MINE = "admin";

export interface Writes {
  /** By Drover, until the last is Running. */
  perInstance: number;
  /** By Drover, until the last is Ready. */
  perInstanceReady: number;
  /** By everybody but whoever made it, until the last is Ready. */
  perPod: number;
  byWhom: Record<string, number>;
}

const barePod = (name: string) => ({
  apiVersion: "v1",
  kind: "Pod",
  metadata: { name, namespace: NAMESPACE },
  spec: {
    nodeSelector: { "kubernetes.io/hostname": NODE },
    terminationGracePeriodSeconds: 1,
    containers: [{ name: "holder", image: "localhost/drover-holder:dev", imagePullPolicy: "Never" }],
  },
});

const pods = async (names: readonly string[]): Promise<number> => {
  const from = Date.now();
  await kubectl(["apply", "-f", "-"], { input: names.map((name) => stringify(barePod(name))).join("---\n") });
  const all = names.map((name) => `pod/${name}`);
  await kubectl(["-n", NAMESPACE, "wait", "--for=condition=Ready", "--timeout=60s", ...all], { seconds: 70 });
  const writes = await writesBetween(from, Date.now());
  await kubectl(["-n", NAMESPACE, "delete", ...all, "--timeout=60s"], { seconds: 70 });
  const others = writes.filter(
    ({ user, objectRef }) =>
      user.username !== MINE && !user.username.endsWith(":drover-agent") && objectRef?.namespace === NAMESPACE,
  );
  return others.length / names.length;
};

/** Makes instances at once, after a first one of the network; leaves them running. */
export const measureWrites = async (world: World, names: readonly string[]): Promise<Writes> => {
  const [first = "", ...rest] = names;
  await world.create(first);
  await world.until(first, isReady);
  const from = Date.now();
  await world.createMany(rest);
  const wait = (wanted: typeof isRunning): Promise<unknown> => Promise.all(rest.map((name) => world.until(name, wanted, 180)));
  await wait(isRunning);
  const running = Date.now();
  await wait(isReady);
  const ready = Date.now();
  const own = (await writesBetween(from, ready)).filter(byDrover);
  const untilRunning = own.filter(({ requestReceivedTimestamp }) => Date.parse(requestReceivedTimestamp) <= running);
  return {
    perInstance: untilRunning.length / rest.length,
    perInstanceReady: own.length / rest.length,
    perPod: await pods(rest.map((name) => `bare-${name}`)),
    byWhom: tally(own),
  };
};
