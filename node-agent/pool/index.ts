/** Storage pools of a node: see pools.ts for what they promise. */
export { Pools, type PoolPlace, type PoolsOptions } from "./pools.ts";
export type { Volume, VolumeRequest } from "./volumes.ts";
export { watchPools } from "./watch.ts";
