/** The guest that is moved under faults, and the one who watches it from a third node. */
import {
  apply,
  images,
  kubectl,
  namespaceManifest,
  networkManifest,
  poolManifest,
  virtualMachine,
  waitFor,
  eventually,
} from "../kit/cluster.ts";
import { addressOf, ask, observer, statusWithin, OBSERVED_NETWORK } from "../kit/guest.ts";
import { thawApiServer } from "../lab/faults.ts";
import { inNode, lab } from "../lab/index.ts";
import { NAME, NAMESPACE, type World } from "./run.ts";

const POOL = "chaos";
const LABEL = "drover-chaos";
const NODES = ["n1", "n2"];
const OBSERVER = "n3";

/** Takes away what a run left that was broken off. */
const sweep = async (): Promise<void> => {
  await thawApiServer();
  for (const { name } of lab().nodes) await inNode(name, "sh", ["-c", "rm -f /var/lib/drover/checkpoints/*.hold"]);
  await inNode(OBSERVER, "sh", [
    "-c",
    'for n in $(ip netns list | cut -d" " -f1 | grep "^probe"); do ip link del "$n"; ip netns del "$n"; done; true',
  ]);
  await kubectl(["delete", "namespace", NAMESPACE, "--ignore-not-found", "--timeout=180s"], { seconds: 190 });
};

export const makeWorld = async (): Promise<World> => {
  await sweep();
  const { tiny } = await images();
  for (const node of NODES) await kubectl(["label", "node", node, `${LABEL}=here`, "--overwrite"]);
  await apply(namespaceManifest(NAMESPACE), poolManifest(POOL, "3Gi"));
  await apply(
    networkManifest(NAMESPACE, "net", OBSERVED_NETWORK),
    virtualMachine(NAMESPACE, NAME, {
      image: tiny,
      network: "net",
      pool: POOL,
      // Any node but the observer's: the guest goes to and fro.
      spec: { placement: { nodeSelector: { [LABEL]: "here" } }, restart: "Always" },
    }),
  );
  await waitFor(`inst/${NAME}`, "condition=Ready", 180, NAMESPACE);
  const probe = await observer({ node: OBSERVER, namespace: NAMESPACE, network: "net" });
  const address = await addressOf(NAMESPACE, NAME);
  await statusWithin(probe, address, 60);
  // Something to copy, so that copying lasts while its rate is limited.
  await ask(probe, address, "/fill/96");
  return { probe };
};

export const removeWorld = async ({ probe }: World): Promise<void> => {
  await eventually(async () => (await probe.remove(), true), 60, "the observer is removed").catch(() => undefined);
  await kubectl(["delete", "namespace", NAMESPACE, "--timeout=180s"], { seconds: 190 });
  for (const node of NODES) await kubectl(["label", "node", node, `${LABEL}-`]);
  await kubectl(["delete", `dpool/${POOL}`, "--timeout=120s"], { seconds: 130 });
};
