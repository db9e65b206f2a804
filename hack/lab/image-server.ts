/**
 * The lab's image server, a process of its own in the hub: `node image-server.ts DIRECTORY ADDRESS PORT`. Serves the files of a
 * directory by HTTP, with ranges, so that a broken download can go on; nothing else, and nothing outside the directory.
 */
import { createReadStream } from "node:fs";
import { open } from "node:fs/promises";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import { join, normalize } from "node:path";

/** Bytes that a Range header asks for, of a file of that size; undefined for all of it, "none" when there are no such bytes. Pure. */
export const rangeOf = (header: string | undefined, size: number): { start: number; end: number } | "none" | undefined => {
  const match = /^bytes=(\d*)-(\d*)$/.exec(header ?? "");
  if (!match || (match[1] === "" && match[2] === "")) return undefined;
  const start = match[1] === "" ? Math.max(0, size - Number(match[2])) : Number(match[1]);
  const end = match[1] === "" || match[2] === "" ? size - 1 : Math.min(Number(match[2]), size - 1);
  return start > end ? "none" : { start, end };
};

const end = (response: ServerResponse, status: number, headers: Record<string, string | number> = {}): void => {
  response.writeHead(status, { "content-length": 0, ...headers }).end();
};

const answer = async (directory: string, request: IncomingMessage, response: ServerResponse): Promise<void> => {
  if (request.method !== "GET" && request.method !== "HEAD") return end(response, 405, { allow: "GET, HEAD" });
  const path = normalize(decodeURIComponent(new URL(request.url ?? "/", "http://lab").pathname));
  const file = await open(join(directory, path)).catch(() => undefined);
  if (!file) return end(response, 404);
  const info = await file.stat();
  if (!info.isFile()) {
    await file.close();
    return end(response, 404);
  }
  await file.close();
  const range = rangeOf(request.headers.range, info.size);
  if (range === "none") return end(response, 416, { "content-range": `bytes */${info.size}` });
  const { start, end: last } = range ?? { start: 0, end: info.size - 1 };
  response.writeHead(range ? 206 : 200, {
    "accept-ranges": "bytes",
    "content-type": "application/octet-stream",
    "content-length": Math.max(0, last - start + 1),
    etag: `"${info.size}-${info.mtimeMs}"`,
    ...(range ? { "content-range": `bytes ${start}-${last}/${info.size}` } : {}),
  });
  if (request.method === "HEAD" || info.size === 0) {
    response.end();
    return;
  }
  // A client that leaves in the middle ends the reading too.
  createReadStream(join(directory, path), { start, end: last })
    .on("error", () => response.destroy())
    .pipe(response);
};

const serve = (directory: string, address: string, port: number): void => {
  const server = createServer((request, response) => {
    answer(directory, request, response).catch((error: unknown) => {
      process.stderr.write(`${request.method} ${request.url}: ${String(error)}\n`);
      if (response.headersSent) response.destroy();
      else end(response, 500);
    });
  });
  server.listen(port, address, () => process.stdout.write(`serving ${directory} at http://${address}:${port}\n`));
};

if (import.meta.main) {
  const [directory = "", address = "", port = ""] = process.argv.slice(2);
  serve(directory, address, Number(port));
}
