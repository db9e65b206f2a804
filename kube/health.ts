/** /healthz, /readyz and /metrics over HTTP. */
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { promisify } from "node:util";
import { gzip } from "node:zlib";
import type { Registry } from "prom-client";
import { errorText } from "./errors.ts";

/** true: well. Otherwise what is wrong, for a person. */
export type Check = () => boolean | string;

export interface HealthOptions {
  /** 0 takes any free port. */
  port: number;
  host?: string;
  /** /readyz: may take traffic, may count as rolled out. */
  ready: Check;
  /** /healthz: false or a text asks the kubelet to restart the container. */
  live: Check;
  registry: Registry;
}

export interface HealthServer {
  port: number;
  /** Ends it, with the connections that are open. */
  close(): Promise<void>;
}

/** Serves until closed. @throws when the port is taken */
export const serveHealth = async (options: HealthOptions): Promise<HealthServer> => {
  const server = createServer((request, response) => {
    answer(request, response, options).catch((error: unknown) => {
      if (!response.headersSent) response.writeHead(500, { "Content-Type": "text/plain" });
      response.end(`${errorText(error)}\n`);
    });
  });
  server.headersTimeout = 5_000;
  server.requestTimeout = 10_000;
  await new Promise<void>((resolve, reject) => {
    server.once("error", (cause) =>
      reject(
        new Error(`health and metrics cannot be served on port ${options.port}: ${cause.message}; choose another port`, {
          cause,
        }),
      ),
    );
    server.listen(options.port, options.host, resolve);
  });
  return {
    port: (server.address() as AddressInfo).port,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
};

const compress = promisify(gzip);

const answer = async (request: IncomingMessage, response: ServerResponse, options: HealthOptions): Promise<void> => {
  const path = new URL(request.url ?? "/", "http://localhost").pathname;
  if (request.method !== "GET" && request.method !== "HEAD") {
    response.writeHead(405, { Allow: "GET, HEAD" }).end();
    return;
  }
  if (path === "/healthz" || path === "/readyz") {
    const verdict = ask(path === "/healthz" ? options.live : options.ready);
    response.writeHead(verdict === true ? 200 : 503, { "Content-Type": "text/plain" });
    response.end(verdict === true ? "ok\n" : `${verdict === false ? "not ok" : verdict}\n`);
    return;
  }
  if (path !== "/metrics") {
    response.writeHead(404, { "Content-Type": "text/plain" }).end("there is /healthz, /readyz and /metrics\n");
    return;
  }
  const text = await options.registry.metrics();
  const wantsGzip = /\bgzip\b/.test(request.headers["accept-encoding"]?.toString() ?? "");
  const body = wantsGzip ? await compress(text) : Buffer.from(text);
  response.writeHead(200, {
    "Content-Type": options.registry.contentType,
    "Content-Length": body.length,
    Vary: "Accept-Encoding",
    ...(wantsGzip ? { "Content-Encoding": "gzip" } : {}),
  });
  response.end(body);
};

const ask = (check: Check): boolean | string => {
  try {
    return check();
  } catch (error) {
    return errorText(error);
  }
};
