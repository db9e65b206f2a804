/** Storage pools of a node: see pools.ts for what they promise. */
export { Pools } from "./pools.ts";
export { watchPools } from "./watch.ts";
