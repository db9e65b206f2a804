import type { Sample } from "./measure.ts";
export const publish = async (samples: readonly Sample[]): Promise<void> => {
  console.log(samples.length);
};
