/**
 * Run when an image is built: writes what remains of each TypeScript file without its types beside it (`main.ts.js` beside
 * `main.ts`), each token on its own line and column. load.mjs reads these. Arguments: the directories.
 */
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { stripTypeScriptTypes } from "node:module";
import { join } from "node:path";

for (const directory of process.argv.slice(2))
  for (const name of readdirSync(directory, { recursive: true })) {
    if (!name.endsWith(".ts")) continue;
    const file = join(directory, name);
    writeFileSync(`${file}.js`, stripTypeScriptTypes(readFileSync(file, "utf8")));
  }
