/**
 * One GET that cannot be led to addresses it must not reach, whatever names resolve to and redirects say. Node's own http: the
 * first request of undici compiles its parser's WebAssembly, which costs an agent 20 MB for its whole life.
 */
import { lookup as systemLookup, type LookupAddress } from "node:dns";
import { request as httpRequest, STATUS_CODES, type ClientRequest, type IncomingMessage, type RequestOptions } from "node:http";
import { request as httpsRequest } from "node:https";
import { isIP, type LookupFunction } from "node:net";
import type { Readable } from "node:stream";
import { callbackify } from "node:util";
import { errorCode, errorText } from "../errors.ts";
import { addressCheck, type AddressRules } from "./address.ts";
import { ImageError } from "./errors.ts";

/** Resolves a name to all of its addresses. */
export type Resolve = (host: string) => Promise<LookupAddress[]>;

export interface FetchOptions {
  rules: AddressRules;
  /** Until an answer's headers are there. */
  answerMs: number;
  /** A certificate authority that is trusted besides the usual ones, PEM. */
  ca?: string | undefined;
  resolve?: Resolve | undefined;
}

export interface Answer {
  status: number;
  header: (name: string) => string | undefined;
  body: Readable;
}

const MAX_REDIRECTS = 5;
const REDIRECTS = new Set([301, 302, 303, 307, 308]);

const resolveAll: Resolve = (host) =>
  new Promise((resolve, reject) => {
    systemLookup(host, { all: true }, (error, addresses) => (error ? reject(error) : resolve(addresses)));
  });

/** An address as it may be shown: without credentials, and without a query, which may be a signature. */
export function showUrl(url: string | URL): string {
  const parsed = URL.canParse(String(url)) ? new URL(url) : undefined;
  return parsed ? `${parsed.origin}${parsed.pathname}` : "image.url";
}

/** Fetches files over HTTP(S); `close` ends its connections. */
export class Fetcher {
  readonly #check: (address: string) => string | undefined;
  readonly #answerMs: number;
  readonly #connection: Pick<RequestOptions, "lookup"> & { ca?: string };
  readonly #requests = new Set<ClientRequest>();

  constructor(options: FetchOptions) {
    this.#check = addressCheck(options.rules);
    this.#answerMs = options.answerMs;
    const lookup = guardedLookup(this.#check, options.resolve ?? resolveAll);
    this.#connection = { lookup, ...(options.ca === undefined ? {} : { ca: options.ca }) };
  }

  /**
   * Asks for a file, following redirects; each hop and each address that a name resolves to is checked, and the connection
   * goes to an address that was checked. The caller reads or destroys the body.
   * Throws ImageError: ImageForbidden, or ImageUnreachable (passing).
   */
  async get(url: string, headers: Record<string, string>, signal: AbortSignal): Promise<Answer> {
    let at = parseUrl(url);
    for (let hop = 0; hop <= MAX_REDIRECTS; hop += 1) {
      this.#checkUrl(at);
      const answer = await this.#ask(at, headers, signal);
      if (!REDIRECTS.has(answer.status)) return answer;
      answer.body.destroy();
      at = next(at, answer.header("location"));
    }
    throw new ImageError("ImageUnreachable", `${showUrl(url)} leads through more than ${MAX_REDIRECTS} redirects`);
  }

  close(): void {
    for (const request of this.#requests) request.destroy();
  }

  /** A name is checked when it is resolved; an address in the URL itself never is resolved. */
  #checkUrl(url: URL): void {
    const host = url.hostname.replace(/^\[|\]$/g, "");
    const why = isIP(host) === 0 ? undefined : this.#check(host);
    if (why !== undefined) throw forbidden(url.hostname, host, why);
  }

  async #ask(url: URL, headers: Record<string, string>, signal: AbortSignal): Promise<Answer> {
    const options = {
      ...this.#connection,
      // A connection of its own for each request: one that was kept could break just as it is used again.
      agent: false,
      headers: { "accept-encoding": "identity", "user-agent": "drover", ...headers },
      signal,
    };
    try {
      const request = url.protocol === "https:" ? httpsRequest(url, options) : httpRequest(url, options);
      this.#requests.add(request);
      request.once("close", () => this.#requests.delete(request));
      const response = await answerOf(request, this.#answerMs);
      const header = (name: string): string | undefined => {
        const value = response.headers[name];
        return Array.isArray(value) ? value[0] : value;
      };
      return { status: response.statusCode ?? 0, header, body: response };
    } catch (error) {
      signal.throwIfAborted();
      throw asImageError(url, error);
    }
  }
}

/** Sends, and waits for the answer's headers. Stalls of the body are noticed by whoever reads it. */
const answerOf = (request: ClientRequest, answerMs: number): Promise<IncomingMessage> =>
  new Promise((resolve, reject) => {
    const timer = setTimeout(() => request.destroy(new Error(`it did not answer within ${answerMs / 1000} s`)), answerMs);
    const fail = (error: Error): void => {
      clearTimeout(timer);
      reject(error);
    };
    // It stays: a request whose answer is broken off may report that too.
    request.on("error", fail);
    // Also without a word, as after an answer that asks for another protocol.
    request.once("close", () => fail(new Error("it closed the connection without an answer")));
    request.once("response", (response) => {
      clearTimeout(timer);
      // Whoever destroys the body has ended with it; its late error is nobody's.
      response.on("error", () => undefined);
      resolve(response);
    });
    request.end();
  });

/** Resolves like the system does, and hands out addresses only when none of them is refused. */
function guardedLookup(check: (address: string) => string | undefined, resolve: Resolve): LookupFunction {
  const resolveChecked = callbackify(
    async (host: string, family: number | string | undefined): Promise<[LookupAddress, ...LookupAddress[]]> => {
      const addresses = await resolve(host);
      for (const { address } of addresses) {
        const why = check(address);
        if (why !== undefined) throw forbidden(host, address, why);
      }
      const [first, ...others] = addresses.filter((one) => (family === 4 || family === 6 ? one.family === family : true));
      if (!first) throw new Error(`${host} has no address`);
      return [first, ...others];
    },
  );
  return (host, options, callback) => {
    resolveChecked(host, options.family, (error, addresses) => {
      if (error) callback(error, "");
      else if (options.all) callback(null, addresses);
      else callback(null, addresses[0].address, addresses[0].family);
    });
  };
}

function forbidden(host: string, address: string, why: string): ImageError {
  const what = host === address || host === `[${address}]` ? address : `${host} (${address})`;
  return new ImageError(
    "ImageForbidden",
    `images are not fetched from ${what}: the address is ${why}; use a server that is reachable as itself`,
  );
}

function parseUrl(text: string): URL {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (!url || (url.protocol !== "http:" && url.protocol !== "https:")) {
    throw new ImageError("ImageForbidden", "image.url must be an http or https address");
  }
  if (url.username !== "" || url.password !== "") {
    throw new ImageError(
      "ImageForbidden",
      `${showUrl(url)}: image.url must not carry a user name or password; everyone who may read the instance would read it`,
    );
  }
  return url;
}

function next(from: URL, location: string | undefined): URL {
  if (location === undefined || !URL.canParse(location, from.href)) {
    throw new ImageError("ImageUnreachable", `${showUrl(from)} answers with a redirect to nowhere`);
  }
  const to = parseUrl(new URL(location, from.href).href);
  if (from.protocol === "https:" && to.protocol === "http:") {
    throw new ImageError(
      "ImageForbidden",
      `${showUrl(from)} leads from https to http (${showUrl(to)}); give an address that stays with https`,
    );
  }
  return to;
}

const NETWORK: Record<string, string> = {
  ECONNREFUSED: "the connection was refused",
  ECONNRESET: "it closed the connection without an answer",
  EHOSTUNREACH: "there is no route to it",
  ENETUNREACH: "there is no route to it",
  ETIMEDOUT: "the connection timed out",
  ENOTFOUND: "its name does not resolve on the node",
  EAI_AGAIN: "its name could not be resolved on the node",
};

function asImageError(url: URL, error: unknown): ImageError {
  for (let cause: unknown = error; cause instanceof Error; cause = cause.cause) if (cause instanceof ImageError) return cause;
  const code = errorCode(error) ?? "";
  const why = NETWORK[code] ?? errorText(error);
  // A certificate does not get better within seconds.
  const passing = !/CERT|TLS|SSL|SELF_SIGNED|ERR_INVALID/.test(code);
  return new ImageError("ImageUnreachable", `could not fetch ${showUrl(url)}: ${why}`, { cause: error, passing });
}

/** What an answer other than the file means. */
export function statusError(url: string, answer: Answer): ImageError {
  const { status } = answer;
  const passing = status >= 500 || status === 429 || status === 408;
  const words = `${showUrl(url)} answers ${status} ${STATUS_CODES[status] ?? ""}`.trimEnd();
  const wait = Number(answer.header("retry-after"));
  const retry = passing && wait > 0 && wait <= 3600 ? { retryAfterMs: wait * 1000 } : {};
  return new ImageError("ImageUnreachable", passing ? words : `${words}; check image.url`, { passing, ...retry });
}
