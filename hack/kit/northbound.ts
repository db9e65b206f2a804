/** What OVN's northbound database holds of a port. */
import { kubectl } from "./cluster.ts";

/** Chassis that may claim a logical switch port, and how the second of two is woken; empty where an option is not set. */
export const portOptions = async (port: string): Promise<{ chassis: string; strategy: string }> => {
  const command =
    "-n drover-system exec ovn-central-0 -c nb -- ovn-nbctl --db=unix:/run/ovn/ovnnb_db.sock get Logical_Switch_Port";
  const text = await kubectl([...command.split(" "), port, "options"]);
  const option = (name: string): string => new RegExp(`${name}="?([^,"}]+)`).exec(text)?.[1] ?? "";
  return { chassis: option("requested-chassis"), strategy: option("activation-strategy") };
};
