/** RFC 7047 client: used for OVN's northbound database and for a node's own Open vSwitch. */
export { OvsdbClient, type OvsdbClientOptions } from "./client.ts";
export { DisconnectedError, errorText, OvsdbError, OvsdbTimeoutError } from "./errors.ts";
export { byUuid, type Condition, type Operation, type OperationResult, ops } from "./operations.ts";
export { parseRemote, type Remote, remoteText, type TlsFiles } from "./remote.ts";
export { type MonitorSpec, Replica } from "./replica.ts";
export type { RowChange } from "./updates.ts";
export {
  asBoolean,
  asMap,
  asNumber,
  asOptional,
  asSet,
  asString,
  canonical,
  mapOf,
  namedUuid,
  type Row,
  sameValue,
  uuid,
  type Value,
} from "./values.ts";
