/** Whether the server at the other end is one to talk to, as its _Server database says (ovsdb-server(5)). */
import type { Row } from "./values.ts";
import { asBoolean, asOptional } from "./values.ts";

/** Undefined when the server will do; else why not. Pure. `rows`: its _Server.Database rows, undefined where it has no such database (before Open vSwitch 2.9: never clustered). */
export const unfitBecause = (rows: Iterable<Row> | undefined, database: string, leaderOnly: boolean): string | undefined => {
  if (rows === undefined) return undefined;
  const row = [...rows].find((one) => asOptional(one["name"]) === database);
  if (!row) return `it has no database ${database}`;
  const model = asOptional(row["model"]);
  if (model === "standalone") return undefined;
  if (asBoolean(row["connected"]) !== true) {
    return model === "relay"
      ? "it is a relay without a connection to its source"
      : "it is cut off from the majority of its cluster";
  }
  if (model === "clustered" && leaderOnly && asBoolean(row["leader"]) !== true) return "it is not the leader of its cluster";
  return undefined;
};
