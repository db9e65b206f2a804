/** What a node tells the cluster of itself: see node-host.ts. */
export { NodeHost } from "./node-host.ts";
export type { HostFacts } from "./status.ts";
