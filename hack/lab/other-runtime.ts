/** The second runtime in a lab that is up: on its nodes, for a `helm upgrade` that names it. */
import { alone } from "./cluster.ts";
import { refreshImages } from "./disk.ts";
import type { Lab } from "./identity.ts";
import { ensureOtherRuntime } from "./images.ts";
import type { Progress } from "./progress.ts";

const PATIENCE_MS = 60_000;

/** Builds it unless it is in the cache, and puts it where the nodes' kubelets find it. Gives its name, for the chart's `image.runtime`. */
export const bringOtherRuntime = (lab: Lab, progress: Progress): Promise<string> =>
  alone(
    lab,
    async () => {
      const image = await ensureOtherRuntime(lab, progress);
      await progress.step(`${image.name} on the nodes`, () => refreshImages(lab.nodes, [image]));
      return image.name;
    },
    PATIENCE_MS,
  );
