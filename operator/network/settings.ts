/** What the operator's environment says of networks and of OVN. */
import { type Remote, parseRemote } from "../../ovsdb/index.ts";

export interface NetworkSettings {
  /** Largest packet of an instance, in bytes: the underlay's less what Geneve adds (58 over IPv4, 78 over IPv6). */
  readonly mtu: number;
  /** Marks the rows of this Drover in a northbound database that others write to as well. */
  readonly scope: string;
  readonly northbound: NorthboundSettings;
}

export interface NorthboundSettings {
  /** Fixed places; empty: found by the Service's EndpointSlices. */
  readonly remotes: readonly Remote[];
  readonly service?: { readonly namespace: string; readonly name: string };
  /** Directory with ca.crt, tls.crt and tls.key; without it the connection is plain TCP. */
  readonly tlsDirectory?: string;
  /** Name in the server's certificate; undefined: only its CA is checked, as OVS does. */
  readonly serverName?: string;
}

/** 1500 - 58: Geneve over IPv4 on an ordinary Ethernet. */
const DEFAULT_MTU = 1442;
/** IPv6 asks for 1280 on every link (RFC 8200 §5). */
const MIN_MTU = 1280;
const MAX_MTU = 9_000;

const readMtu = (text: string | undefined): number => {
  if (text === undefined || text === "") return DEFAULT_MTU;
  const mtu = Number(text);
  if (Number.isInteger(mtu) && mtu >= MIN_MTU && mtu <= MAX_MTU) return mtu;
  throw new Error(`DROVER_NETWORK_MTU is "${text}"; give a whole number from ${MIN_MTU} to ${MAX_MTU}, such as ${DEFAULT_MTU}`);
};

const readScope = (text: string | undefined): string => {
  if (text === undefined || text === "") return "drover";
  if (/^[A-Za-z0-9._-]{1,63}$/.test(text)) return text;
  throw new Error(`DROVER_OVN_SCOPE is "${text}"; give up to 63 letters, digits, ".", "_" or "-"`);
};

/** Reads the environment (docs/network.md lists it). Throws with the variable's name and what to write instead. */
export const networkSettings = (env: NodeJS.ProcessEnv): NetworkSettings => {
  const remotes = (env["DROVER_OVN_NB"] ?? "")
    .split(",")
    .map((text) => text.trim())
    .filter((text) => text !== "")
    .map(parseRemote);
  const namespace = env["DROVER_OVN_NAMESPACE"] || env["POD_NAMESPACE"];
  if (remotes.length === 0 && !namespace)
    throw new Error("neither DROVER_OVN_NB nor DROVER_OVN_NAMESPACE says where OVN's northbound database is");
  const tlsDirectory = env["DROVER_OVN_TLS_DIR"];
  const byService = remotes.length === 0;
  return {
    mtu: readMtu(env["DROVER_NETWORK_MTU"]),
    scope: readScope(env["DROVER_OVN_SCOPE"]),
    northbound: {
      remotes,
      ...(byService && namespace ? { service: { namespace, name: env["DROVER_OVN_SERVICE"] || "ovn-central" } } : {}),
      ...(tlsDirectory ? { tlsDirectory } : {}),
      // The chart's certificate carries this name; the address is some node's. An existing OVN's is checked by its CA alone.
      ...(byService ? { serverName: "ovn-central" } : {}),
    },
  };
};
