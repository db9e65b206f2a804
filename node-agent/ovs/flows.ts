/** What a restarted vswitchd has forgotten of a bridge: tunnel metadata, groups, meters and flows; saved before, given back after. */
import { runInTree, type OvsTree } from "./tree.ts";

export interface SavedFlows {
  bridge: string;
  /** As add-tlv-map takes it; empty for none. */
  tlvMap: string;
  groups: string;
  meters: string;
  flows: string;
}

const DEADLINE_MS = 20_000;
const PROTOCOL = ["-O", "OpenFlow14"];

/** Reads a bridge's tables through its management socket. Throws CommandError when the switch does not answer. */
export async function saveFlows(tree: OvsTree, runDir: string, bridge: string): Promise<SavedFlows> {
  const ask = async (...args: string[]): Promise<string> =>
    (await runInTree(tree, tree.ovsOfctl, [...PROTOCOL, ...args], { deadlineMs: DEADLINE_MS })).stdout;
  const target = management(runDir, bridge);
  const [tlvMap, groups, meters, flows] = await Promise.all([
    ask("dump-tlv-map", target),
    ask("dump-groups", target),
    ask("dump-meters", target),
    ask("--no-names", "--no-stats", "dump-flows", target),
  ]);
  return {
    bridge,
    tlvMap: tlvMapArgument(tlvMap),
    groups: withoutHeads(groups),
    meters: withoutHeads(meters),
    flows: flowLines(flows),
  };
}

/** Gives them back, in the order in which they refer to each other. What is there already is replaced. */
export async function restoreFlows(tree: OvsTree, runDir: string, saved: SavedFlows): Promise<void> {
  const tell = (args: string[], input?: string): Promise<unknown> =>
    runInTree(tree, tree.ovsOfctl, [...PROTOCOL, ...args], {
      deadlineMs: DEADLINE_MS,
      ...(input === undefined ? {} : { input }),
    });
  const target = management(runDir, saved.bridge);
  if (saved.tlvMap !== "") await tell(["add-tlv-map", target, saved.tlvMap]);
  for (const meter of saved.meters.split("\n").filter((line) => line !== "")) await tell(["add-meter", target, meter]);
  if (saved.groups !== "") await tell(["--bundle", "add-groups", target, "-"], saved.groups);
  await tell(["--bundle", "replace-flows", target, "-"], saved.flows);
}

const management = (runDir: string, bridge: string): string => `unix:${runDir}/${bridge}.mgmt`;

/** `ovs-ofctl dump-tlv-map`'s table as `add-tlv-map` takes it. */
export function tlvMapArgument(dump: string): string {
  return dump
    .split("\n")
    .map((line) => line.trim().split(/\s+/))
    .flatMap(([cls, type, length, field]) =>
      cls?.startsWith("0x") && field !== undefined ? [`{class=${cls},type=${type},len=${length}}->${field}`] : [],
    )
    .join(",");
}

/** A dump without the lines that say which reply it is. */
export function withoutHeads(dump: string): string {
  const lines = dump.split("\n").filter((line) => line.trim() !== "" && !/^(OFPST|NXST)_[A-Z_]+ reply/.test(line.trim()));
  return lines.map((line) => `${line.trim()}\n`).join("");
}

/** Flows as they can be added again: ages are dropped, and matches that are shown under names that cannot be read are renamed. */
export function flowLines(dump: string): string {
  return withoutHeads(dump)
    .replaceAll(/(idle|hard)_age=[^,]*,\s*/g, "")
    .replaceAll("igmp_type", "tp_src")
    .replaceAll("igmp_code", "tp_dst")
    .replaceAll("igmp", "ip,nw_proto=2");
}
