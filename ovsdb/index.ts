/**
 * RFC 7047 client: used for OVN's northbound database and for a node's own Open vSwitch.
 * `@public`: part of what a client offers, though Drover needs it not (yet).
 */
export { OvsdbClient, type OvsdbClientOptions } from "./client.ts";
export { DisconnectedError, errorText, OvsdbError, /** @public */ OvsdbTimeoutError } from "./errors.ts";
export {
  byUuid,
  /** @public */
  type Condition,
  type Operation,
  /** @public */
  type OperationResult,
  ops,
} from "./operations.ts";
export { parseRemote, type Remote, /** @public */ remoteText, type TlsFiles } from "./remote.ts";
export { type MonitorSpec, Replica } from "./replica.ts";
export type { RowChange } from "./updates.ts";
export {
  /** @public */
  asBoolean,
  asMap,
  asNumber,
  asOptional,
  asSet,
  asString,
  /** @public */
  canonical,
  mapOf,
  namedUuid,
  type Row,
  sameValue,
  uuid,
  type Value,
} from "./values.ts";
