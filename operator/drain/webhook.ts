/** The webhook on evictions, over HTTPS, in every replica. */
import { createHash, timingSafeEqual } from "node:crypto";
import { readFile } from "node:fs/promises";
import type { IncomingMessage, ServerResponse } from "node:http";
import { createServer } from "node:https";
import type { AddressInfo } from "node:net";
import path from "node:path";
import { errorText } from "../../kube/index.ts";
import { judge, type EvictionContext } from "./evictions.ts";
import { answerReview, parseReview } from "./review.ts";

export interface WebhookFiles {
  cert: string;
  key: string;
  /**
   * Last part of the path. Only whoever may read the webhook's configuration or the operator's Secret knows it: an API server shows no
   * certificate of its own to a webhook, and whoever could ask here without it could have instances moved or stopped.
   */
  token: string;
}

export interface Webhook {
  port: number;
  /** Ends it, with the connections that are open. */
  close(): Promise<void>;
}

/** An eviction is a few hundred bytes; a review carries the user's groups, too. */
const MOST_BYTES = 256 * 1024;
/** The API server gives up after 5 s. */
const REQUEST_MS = 5_000;
const READ_AGAIN_MS = 1_000;
const TLS = { minVersion: "TLSv1.2" } as const;

/** Reads tls.crt, tls.key and token of a directory. Throws when one is missing. */
export async function webhookFiles(directory: string): Promise<WebhookFiles> {
  const read = async (name: string): Promise<string> => {
    try {
      return await readFile(path.join(directory, name), "utf8");
    } catch (cause) {
      throw new Error(`the webhook's ${name} cannot be read; is the Secret drover-operator-webhook there?`, { cause });
    }
  };
  const [cert, key, token] = await Promise.all([read("tls.crt"), read("tls.key"), read("token")]);
  if (token.trim().length < 16) throw new Error("the webhook's token is too short; set webhook.renew to have it made anew");
  return { cert, key, token: token.trim() };
}

const digest = (text: string): Buffer => createHash("sha256").update(text).digest();

async function bodyOf(request: IncomingMessage): Promise<string> {
  const parts: Buffer[] = [];
  let size = 0;
  for await (const part of request as AsyncIterable<Buffer>) {
    size += part.length;
    if (size > MOST_BYTES) throw new Error(`a review of more than ${MOST_BYTES} bytes`);
    parts.push(part);
  }
  return Buffer.concat(parts).toString("utf8");
}

/**
 * Serves until closed. What goes wrong is answered by 500: the API server then lets the eviction pass on to the PodDisruptionBudget,
 * which refuses every claim that runs.
 * @param read gives key, certificate and token; asked again when a caller does not accept what it gave before, at most once a second:
 *   they may have been made anew
 * @param port 0 takes any free one
 */
export async function serveWebhook(read: () => Promise<WebhookFiles>, port: number, ctx: EvictionContext): Promise<Webhook> {
  let files = await read();
  let readAt = ctx.now();
  const readAgain = async (): Promise<void> => {
    if (Math.abs(ctx.now() - readAt) < READ_AGAIN_MS) return;
    readAt = ctx.now();
    const found = await read();
    if (found.token === files.token && found.cert === files.cert && found.key === files.key) return;
    server.setSecureContext({ ...TLS, cert: found.cert, key: found.key });
    files = found;
    ctx.log.info("the webhook has a new certificate");
  };
  const isOurs = (pathname: string): boolean => timingSafeEqual(digest(pathname), digest(`/evictions/${files.token}`));
  const answer = async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
    const asked = new URL(request.url ?? "/", "https://localhost").pathname;
    if (!isOurs(asked)) await readAgain();
    if (request.method !== "POST" || !isOurs(asked)) {
      response.writeHead(404).end();
      return;
    }
    const review = parseReview(await bodyOf(request));
    const said = await judge(review, ctx);
    response.writeHead(200, { "Content-Type": "application/json" });
    response.end(JSON.stringify(answerReview(review.uid, said)));
  };
  const server = createServer({ ...TLS, cert: files.cert, key: files.key }, (request, response) => {
    answer(request, response).catch((error: unknown) => {
      ctx.log.warn({ error: errorText(error) }, "an eviction could not be judged");
      if (!response.headersSent) response.writeHead(500, { "Content-Type": "text/plain" });
      response.end("the eviction could not be judged\n");
      request.destroy();
    });
  });
  server.headersTimeout = REQUEST_MS;
  server.requestTimeout = REQUEST_MS;
  await new Promise<void>((resolve, reject) => {
    const refused = (cause: Error): void =>
      reject(new Error(`the webhook cannot be served on port ${port}: ${cause.message}; choose another port`, { cause }));
    server.once("error", refused);
    server.listen(port, () => {
      server.off("error", refused);
      resolve();
    });
  });
  server.on("tlsClientError", (problem) => {
    ctx.log.debug({ error: errorText(problem) }, "a TLS handshake with the webhook failed");
    readAgain().catch((cause: unknown) =>
      ctx.log.warn({ error: errorText(cause) }, "the webhook's files could not be read again"),
    );
  });
  server.on("error", (error) => ctx.log.error({ error: errorText(error) }, "the webhook's server"));
  return {
    port: (server.address() as AddressInfo).port,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}
