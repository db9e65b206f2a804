/**
 * A candidate for leadership in a process of its own, so that it can be frozen. While it leads it acts: it makes config maps,
 * one after the other, whose order of creation shows who acted when. Arguments: kubeconfig file, identity. Says what it does
 * on stdout, one JSON object per line.
 */
import { readFile } from "node:fs/promises";
import { KubeClient, LeaderElector, NotLeadingError, realClock, resources, sleep, untilSignal } from "../../../kube/index.ts";

const [file = "", identity = ""] = process.argv.slice(2);
const client = KubeClient.fromKubeconfig(await readFile(file, "utf8"));
const say = (what: string): void => void process.stdout.write(`${JSON.stringify({ what, identity })}\n`);

const elector = new LeaderElector({
  client,
  namespace: "default",
  name: "fight",
  identity,
  leaseDurationMs: 3_000,
  renewDeadlineMs: 2_000,
  retryPeriodMs: 300,
});
const guarded = client.with({ guard: elector.assertLeading, deadlineMs: 800 });
let serial = 0;

const act = async (): Promise<void> => {
  const name = `act-${identity}-${String(serial++).padStart(5, "0")}`;
  await guarded.create(resources.configMaps, {
    apiVersion: "v1",
    kind: "ConfigMap",
    metadata: { namespace: "default", name },
    data: { identity },
  });
};

say("started");
await elector.run(async (signal) => {
  say("leads");
  // Deliberately deaf to the signal: only the guard keeps it from writing.
  for (;;) {
    try {
      await act();
      say("acted");
    } catch (error) {
      say(error instanceof NotLeadingError ? "refused" : "failed");
      if (signal.aborted) break;
    }
    await sleep(realClock, 30);
    if (signal.aborted && elector.isLeading) break;
  }
  say("stops");
}, untilSignal());
say("ended");
