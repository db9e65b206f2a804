/** Writes as the API server's audit log has them. */
import { readFile } from "node:fs/promises";
import { auditLog } from "../lab/control.ts";
import { lab } from "../lab/index.ts";

export interface Write {
  verb: string;
  user: { username: string };
  objectRef?: { resource: string; namespace?: string; name?: string; subresource?: string };
  requestReceivedTimestamp: string;
}

const WRITES: ReadonlySet<string> = new Set(["create", "update", "patch", "delete", "deletecollection"]);

/** Writes that the server took between two moments, refused ones too. Leases are left out: they beat whatever happens. */
export const writesBetween = async (from: number, to: number): Promise<Write[]> =>
  (await readFile(auditLog(lab()), "utf8"))
    .split("\n")
    .filter((line) => line !== "")
    .map((line) => JSON.parse(line) as Write)
    .filter(({ verb, objectRef }) => WRITES.has(verb) && objectRef?.resource !== "leases")
    .filter(({ requestReceivedTimestamp }) => {
      const at = Date.parse(requestReceivedTimestamp);
      return at >= from && at <= to;
    });

export const byDrover = ({ user }: Write): boolean => user.username.startsWith("system:serviceaccount:drover-system:drover-");

/** Counts by who and what: `drover-operator patch instances/status` -> 20. */
export const tally = (writes: readonly Write[]): Record<string, number> => {
  const counts: Record<string, number> = {};
  for (const { verb, user, objectRef } of writes) {
    const what = [objectRef?.resource, objectRef?.subresource].filter((part) => part !== undefined).join("/");
    const key = `${user.username.split(":").at(-1) ?? ""} ${verb} ${what}`;
    counts[key] = (counts[key] ?? 0) + 1;
  }
  return counts;
};
