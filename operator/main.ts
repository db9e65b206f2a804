/** Entry of the operator's process. */
import { errorText, KubeClient, rootLogger, untilSignal } from "../kube/index.ts";
import { drainSettings } from "./drain/settings.ts";
import { operatorEnv } from "./env.ts";
import { networkSettings } from "./network/index.ts";
import { DroverOperator } from "./process.ts";

const logger = rootLogger("operator");
try {
  const env = operatorEnv(process.env);
  const network = networkSettings(process.env);
  const drain = drainSettings(process.env);
  const client = KubeClient.fromDefault({ userAgent: "drover-operator" });
  await new DroverOperator({ client, logger, env, network, drain }).run(untilSignal());
  logger.info("the operator has ended");
} catch (error) {
  logger.fatal({ error: errorText(error) }, "the operator cannot go on");
  process.exitCode = 1;
}
