/** What an instance's QEMUs say on stderr, under second names: the first ones go with the instance's directory. */
import { inNode } from "../lab/index.ts";

/** On the file system of the second names. */
const INSTANCES = "/var/lib/drover/instances";

/**
 * A log's inode names its QEMU: a second one writes to a file of its own. Which file it is, is asked of the second name: behind the first
 * one may be the next QEMU's by then, and that one would be two. $0: the instance's directory, $1: where they are kept, $2: what their
 * names begin with.
 */
export const KEEP = [
  'mkdir -p "$1"; taken="$1.taken.$$"; rm -f "$taken"',
  'for f in "$0"/stderr*.log*; do ln "$f" "$taken" 2>/dev/null || continue; to="$1/$2$(stat -c %i "$taken")"; [ -e "$to" ] || ln "$taken" "$to"; rm "$taken"; done',
  "true",
].join("; ");

/** May be repeated; `prefix` begins the names of what is kept in `directory`. */
export const keepLogs = (node: string, uid: string, directory: string, prefix = ""): Promise<string> =>
  inNode(node, "sh", ["-c", KEEP, `${INSTANCES}/${uid}`, directory, prefix]);

/** All that is kept there, and what a `keepLogs` has left that was broken off. */
export const forgetLogs = (node: string, directory: string): Promise<string> =>
  inNode(node, "sh", ["-c", 'rm -rf "$0" "$0".taken.*', directory]);
