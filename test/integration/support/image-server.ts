/** An HTTP server that serves images, and does to them what servers on bad days do. */
import { createHash } from "node:crypto";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";

export type Handler = (request: IncomingMessage, response: ServerResponse) => void;

export const sha256 = (data: Buffer): string => `sha256:${createHash("sha256").update(data).digest("hex")}`;

export class ImageServer {
  readonly #server: Server;
  readonly #handlers = new Map<string, Handler>();
  /** Requests seen: path and Range header. */
  readonly requests: { path: string; range: string | undefined; ifRange: string | undefined }[] = [];

  constructor() {
    this.#server = createServer((request, response) => {
      const path = (request.url ?? "/").split("?")[0] ?? "/";
      this.requests.push({ path, range: request.headers.range, ifRange: request.headers["if-range"] as string | undefined });
      const handler = this.#handlers.get(path);
      if (handler) handler(request, response);
      else response.writeHead(404).end("the server's own words, which are nobody's business");
    });
  }

  async start(): Promise<void> {
    await new Promise<void>((resolve) => this.#server.listen(0, "127.0.0.1", resolve));
  }

  async stop(): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port;
  }

  url(path: string, host = "127.0.0.1"): string {
    return `http://${host}:${this.port}${path}`;
  }

  count(path: string): number {
    return this.requests.filter((request) => request.path === path).length;
  }

  on(path: string, handler: Handler): string {
    this.#handlers.set(path, handler);
    return this.url(path);
  }

  /** Serves a file with ranges and a strong ETag; breaks each connection after some bytes, where told so. */
  file(path: string, data: Buffer, options: { breakAfter?: number; etag?: string; breaks?: number } = {}): string {
    const etag = options.etag ?? `"${createHash("sha256").update(data).digest("hex").slice(0, 16)}"`;
    let breaks = options.breaks ?? Number.POSITIVE_INFINITY;
    return this.on(path, (request, response) => {
      const from =
        request.headers["if-range"] === etag ? Number(/^bytes=(\d+)-$/.exec(request.headers.range ?? "")?.[1] ?? 0) : 0;
      const rest = data.subarray(from);
      const headers = { etag, "content-length": rest.length, "accept-ranges": "bytes" };
      if (from > 0) response.writeHead(206, { ...headers, "content-range": `bytes ${from}-${data.length - 1}/${data.length}` });
      else response.writeHead(200, headers);
      if (options.breakAfter !== undefined && rest.length > options.breakAfter && breaks > 0) {
        breaks -= 1;
        response.write(rest.subarray(0, options.breakAfter), () => setTimeout(() => response.destroy(), 30));
      } else {
        response.end(rest);
      }
    });
  }
}
