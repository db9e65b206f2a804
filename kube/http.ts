/** One HTTP request to the API server, and one endless answer. Node's own https: undici's agent would cost 25 MB more. */
import {
  Agent as HttpAgent,
  request as httpRequest,
  type ClientRequest,
  type IncomingMessage,
  type RequestOptions,
} from "node:http";
import { Agent as HttpsAgent, request as httpsRequest } from "node:https";
import type { Access, Credentials } from "./credentials.ts";
import { TransportError, errorText } from "./errors.ts";

export interface HttpRequest {
  method: "GET" | "POST" | "PUT" | "PATCH" | "DELETE";
  path: string;
  query?: Record<string, string | undefined>;
  body?: string;
  contentType?: string;
  signal?: AbortSignal | undefined;
  /** Until the whole answer is there (request) or its headers are (stream); ms. */
  deadlineMs: number;
}

export interface HttpAnswer {
  status: number;
  body: string;
  retryAfter: string | undefined;
}

/** An answer whose body comes line by line for as long as the server likes. */
export interface HttpStream {
  status: number;
  retryAfter: string | undefined;
  response: IncomingMessage;
}

/** Connections to one API server; re-made when the credentials' TLS identity changes. */
export class HttpTransport {
  readonly #credentials: Credentials;
  readonly #userAgent: string;
  readonly #agents = new Map<string, { identity: string; agent: HttpAgent }>();

  constructor(credentials: Credentials, userAgent: string) {
    this.#credentials = credentials;
    this.#userAgent = userAgent;
  }

  /**
   * Sends and reads the whole answer, whatever its status. A 401 is tried once more with credentials read anew. A kept
   * connection that broke when it was used again is tried once more on a new one, unless the request must not happen twice:
   * the server may have closed it because it was idle, or have died over our request.
   * @throws {TransportError} when no whole answer came before the deadline
   */
  async request(ask: HttpRequest): Promise<HttpAnswer> {
    const end = performance.now() + ask.deadlineMs;
    let refused = false;
    for (let attempt = 0; ; attempt++) {
      const left = Math.max(1, end - performance.now());
      try {
        const response = await this.#send(ask, left, refused, "requests");
        const body = await readAll(response, ask, Math.max(1, end - performance.now()));
        if (response.statusCode === 401 && !refused) {
          refused = true;
          continue;
        }
        return { status: response.statusCode ?? 0, body, retryAfter: response.headers["retry-after"] };
      } catch (error) {
        if (attempt === 0 && mayRepeat(ask) && error instanceof StaleConnection) continue;
        throw error;
      }
    }
  }

  /**
   * Sends and returns as soon as the headers are there. The caller reads or destroys `response`; aborting the signal destroys it.
   * Streams have connections of their own, so that they never take those of requests.
   * @throws {TransportError}
   */
  async stream(ask: HttpRequest): Promise<HttpStream> {
    let response = await this.#send(ask, ask.deadlineMs, false, "streams");
    if (response.statusCode === 401) {
      response.destroy();
      response = await this.#send(ask, ask.deadlineMs, true, "streams");
    }
    return { status: response.statusCode ?? 0, retryAfter: response.headers["retry-after"], response };
  }

  /** Closes kept connections. */
  close(): void {
    for (const { agent } of this.#agents.values()) agent.destroy();
    this.#agents.clear();
  }

  async #send(ask: HttpRequest, deadlineMs: number, refused: boolean, use: "requests" | "streams"): Promise<IncomingMessage> {
    const access = await this.#credentials.access(refused).catch((cause: unknown) => {
      throw new TransportError(`${describe(ask)}: credentials could not be had: ${errorText(cause)}`, { cause });
    });
    const url = new URL(this.#credentials.server + ask.path);
    for (const [name, value] of Object.entries(ask.query ?? {})) if (value !== undefined) url.searchParams.set(name, value);
    const headers: Record<string, string> = { Accept: "application/json", "User-Agent": this.#userAgent, ...access.headers };
    if (ask.body !== undefined) {
      headers["Content-Type"] = ask.contentType ?? "application/json";
      headers["Content-Length"] = String(Buffer.byteLength(ask.body));
    }
    const options: RequestOptions = { method: ask.method, headers, agent: this.#agent(url, access, use) };
    const request = url.protocol === "https:" ? httpsRequest(url, options) : httpRequest(url, options);
    return answerOf(request, ask, deadlineMs);
  }

  #agent(url: URL, access: Access, use: "requests" | "streams"): HttpAgent {
    if (access.agent) return access.agent;
    const kept = this.#agents.get(use);
    if (kept?.identity === access.identity) return kept.agent;
    // The old agent is left to its requests under way; its idle connections end by their own time-out.
    const options = {
      keepAlive: use === "requests",
      keepAliveMsecs: 15_000,
      maxSockets: use === "requests" ? 32 : Number.POSITIVE_INFINITY,
      maxFreeSockets: 4,
      // An idle connection; below the 90 s and more after which servers and load balancers close theirs.
      timeout: 60_000,
      // A kept session is a few bytes within a block of 64 KiB, which lives as long as they do: one for each connection.
      maxCachedSessions: 0,
    };
    const agent = url.protocol === "https:" ? new HttpsAgent({ ...options, ...access.tls }) : new HttpAgent(options);
    this.#agents.set(use, { identity: access.identity, agent });
    return agent;
  }
}

/** A second POST makes a second object, a second JSON patch adds a second element to a list. */
const mayRepeat = (ask: HttpRequest): boolean => ask.method !== "POST" && ask.contentType !== "application/json-patch+json";

/** The server closed a kept connection when it was used again. */
class StaleConnection extends TransportError {}

const describe = (ask: HttpRequest): string => `${ask.method} ${ask.path}`;

const answerOf = (request: ClientRequest, ask: HttpRequest, deadlineMs: number): Promise<IncomingMessage> =>
  new Promise((resolve, reject) => {
    const settled = (): void => {
      clearTimeout(timer);
      ask.signal?.removeEventListener("abort", abort);
    };
    const fail = (words: string, cause?: unknown): void => {
      settled();
      const stale = request.reusedSocket && (cause as NodeJS.ErrnoException | undefined)?.code === "ECONNRESET";
      reject(new (stale ? StaleConnection : TransportError)(`${describe(ask)}: ${words}`, { cause }));
      request.destroy();
    };
    const abort = (): void => fail("stopped", ask.signal?.reason);
    const timer = setTimeout(() => fail(`no answer within ${Math.round(deadlineMs)} ms`), deadlineMs);
    // Also after the end of a request that was given up: destroying it makes one more error, of no interest.
    request.on("error", (error) => fail(errorText(error), error));
    request.on("response", (response) => {
      settled();
      // A peer that vanished without a word: the kernel asks for it, so that the stream breaks after some minutes at the latest.
      response.socket.setKeepAlive(true, 15_000);
      // The socket's idle time-out is the agent's; a stream may be silent for longer (the watchdog of its reader is what counts).
      response.socket.setTimeout(0);
      resolve(response);
    });
    if (ask.signal?.aborted) {
      abort();
      return;
    }
    ask.signal?.addEventListener("abort", abort, { once: true });
    request.end(ask.body);
  });

const readAll = (response: IncomingMessage, ask: HttpRequest, deadlineMs: number): Promise<string> =>
  new Promise((resolve, reject) => {
    const chunks: Buffer[] = [];
    const settle = (error?: TransportError): void => {
      clearTimeout(timer);
      ask.signal?.removeEventListener("abort", abort);
      if (!error) {
        resolve(Buffer.concat(chunks).toString("utf8"));
        return;
      }
      response.destroy();
      reject(error);
    };
    const abort = (): void => settle(new TransportError(`${describe(ask)}: stopped`, { cause: ask.signal?.reason }));
    const timer = setTimeout(() => settle(new TransportError(`${describe(ask)}: the answer did not end in time`)), deadlineMs);
    ask.signal?.addEventListener("abort", abort, { once: true });
    response.on("data", (chunk: Buffer) => chunks.push(chunk));
    response.on("end", () => settle());
    response.on("error", (cause) =>
      settle(new TransportError(`${describe(ask)}: the answer broke off: ${errorText(cause)}`, { cause })),
    );
    response.on("close", () => {
      if (!response.complete) settle(new TransportError(`${describe(ask)}: the answer broke off`));
    });
  });
