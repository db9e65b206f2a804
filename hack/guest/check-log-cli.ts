/** Prints what the record log on a raw disk holds: `node check-log-cli.ts FILE`. */
import { checkLog } from "./check-log.ts";

const [file] = process.argv.slice(2);
if (file === undefined) throw new Error("usage: node check-log-cli.ts FILE");
process.stdout.write(`${JSON.stringify(await checkLog(file))}\n`);
