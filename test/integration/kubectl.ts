/** kubectl, as a user types it: what it answers, or what it is refused with. */
import path from "node:path";
import { execa } from "execa";
import { binariesDirectory } from "../../hack/control-plane/index.ts";
import type { Json } from "./merge-patch.ts";

export interface Kubectl {
  /** Its output. Throws with the API server's words when it is refused. */
  accepted(args: string[], input?: Json): Promise<string>;
  /** The API server's words. Throws when it is not refused. */
  refusal(args: string[], input?: Json): Promise<string>;
}

/** kubectl with this kubeconfig. `input` is an object, or YAML text, for `-f -`. */
export const kubectlFor = (kubeconfig: string): Kubectl => {
  const run = async (args: string[], input: Json | undefined) => {
    const text = typeof input === "string" ? input : JSON.stringify(input);
    const result = await execa(path.join(binariesDirectory(), "kubectl"), args, {
      env: { KUBECONFIG: kubeconfig },
      reject: false,
      all: true,
      timeout: 60_000,
      ...(input === undefined ? { stdin: "ignore" as const } : { input: text }),
    });
    return { refused: result.failed, output: result.all };
  };
  return {
    accepted: async (args, input) => {
      const { refused, output } = await run(args, input);
      if (refused) throw new Error(`kubectl ${args.join(" ")} was refused: ${output}`);
      return output;
    },
    refusal: async (args, input) => {
      const { refused, output } = await run(args, input);
      if (!refused) throw new Error(`kubectl ${args.join(" ")} should have been refused, but said: ${output}`);
      return output;
    },
  };
};
