/**
 * `node --import` of Drover's images: a TypeScript file is loaded from what strip.mjs wrote beside it, so that the process never
 * loads the WebAssembly that takes types away, nearly 30 MB for its whole life. Unlike Node's own compile cache this depends on
 * no CPU, user or Node version. Where nothing was written (a working tree mounted over the image), Node does it as always.
 */
import { readFileSync } from "node:fs";
import { registerHooks } from "node:module";
import { fileURLToPath } from "node:url";

const stripped = (url) => {
  try {
    return readFileSync(`${fileURLToPath(url)}.js`, "utf8");
  } catch (error) {
    if (error.code === "ENOENT") return undefined;
    throw error;
  }
};

registerHooks({
  load(url, context, next) {
    const source = url.startsWith("file:") && url.endsWith(".ts") ? stripped(url) : undefined;
    return source === undefined ? next(url, context) : { format: "module", source, shortCircuit: true };
  },
});
