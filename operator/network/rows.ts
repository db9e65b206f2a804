/** How Drover's rows in OVN's northbound database are named, marked and described (docs/decisions: row layout). */
import { createHash } from "node:crypto";
import type { MonitorSpec, Value } from "../../ovsdb/index.ts";
import { mapOf } from "../../ovsdb/index.ts";

export type Table = "Logical_Router" | "Logical_Router_Port" | "Logical_Switch" | "Logical_Switch_Port" | "DHCP_Options" | "DNS";

/** Whose rows: "network/<uid>" or "instance/<uid>". */
export type Owner = string;
export const networkOwner = (uid: string): Owner => `network/${uid}`;
export const instanceOwner = (uid: string): Owner => `instance/${uid}`;

/** Marks in external_ids. A row without this scope's mark is somebody else's and is never touched. */
export const MARK = {
  scope: "drover-scope",
  owner: "drover-owner",
  role: "drover-role",
  name: "drover-name",
  listed: "drover-listed-in",
} as const;

/** Names one row: a role is unique within its owner. */
export interface RowRef {
  readonly owner: Owner;
  readonly role: string;
}

/** A row as it should be. */
export interface DesiredRow extends RowRef {
  readonly table: Table;
  /** Columns that are Drover's alone; others are left as they are. */
  readonly columns: Readonly<Record<string, Value>>;
  /** Columns that refer to at most one other row of Drover. */
  readonly refs?: Readonly<Record<string, RowRef>>;
  /** The row, and its column, that lists this one. */
  readonly parent?: RowRef & { readonly table: Table; readonly column: string };
}

/** Rows that the database drops by itself once nothing lists them: taken out of their parent rather than deleted. */
export const LISTED_TABLES: ReadonlySet<Table> = new Set(["Logical_Router_Port", "Logical_Switch_Port"]);
/** Where each of those is listed. */
export const PARENT_OF: Readonly<Partial<Record<Table, { table: Table; column: string }>>> = {
  Logical_Router_Port: { table: "Logical_Router", column: "ports" },
  Logical_Switch_Port: { table: "Logical_Switch", column: "ports" },
};

/**
 * What is copied: Drover's own rows only. `ports` and `dns_records` are left out on purpose: they grow with the number of
 * instances, and each change would cost as much. A listed row exists only while it is listed, so its existence says enough.
 */
export const monitorSpec = (scope: string): MonitorSpec => {
  const where = [["external_ids", "includes", mapOf({ [MARK.scope]: scope })]] as const;
  const table = (...columns: string[]) => ({ columns: [...columns, "external_ids"], where });
  return {
    Logical_Router: table("name", "options"),
    Logical_Router_Port: table("name", "mac", "networks", "ipv6_ra_configs", "options"),
    Logical_Switch: table("name", "other_config"),
    Logical_Switch_Port: table("name", "type", "addresses", "port_security", "options", "dhcpv4_options", "dhcpv6_options"),
    DHCP_Options: table("cidr", "options"),
    DNS: table("records", "options"),
  };
};

/** Hash for made-up values: the same every time, so that what was made once is made again. */
export const hashBytes = (text: string): Buffer => createHash("sha256").update(text).digest();

/** A locally administered MAC, 52:54:00 as QEMU's own, from a text. */
export const madeUpMac = (text: string): string => {
  const [a = 0, b = 0, c = 0] = hashBytes(text);
  return `52:54:00:${[a, b, c].map((byte) => byte.toString(16).padStart(2, "0")).join(":")}`;
};

/** MAC of a network's router. Not of the instances' 52:54:00, so that a made-up one is never it. */
export const routerMac = (networkUid: string): string => {
  const [a = 0, b = 0, c = 0] = hashBytes(`router/${networkUid}`);
  return `0a:00:00:${[a, b, c].map((byte) => byte.toString(16).padStart(2, "0")).join(":")}`;
};
