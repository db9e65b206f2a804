/**
 * `node --import` of the node-agent's image: without V8's two optimizing compilers. What an agent does is many short things, each
 * only some hundred times; compiling them costs more memory than it saves time (docs/decisions/0002). JSON, hashes and TLS are
 * native code, and bulk data never passes through an agent. Not in NODE_OPTIONS, which takes none of these flags.
 */
import { setFlagsFromString } from "node:v8";

setFlagsFromString("--no-maglev");
setFlagsFromString("--no-turbofan");
