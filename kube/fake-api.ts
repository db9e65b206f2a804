/** A pretended API server for unit tests: lists and watches do what the test says. Real HTTP, so that the wire is tested too. */
import { createServer, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { KubeClient, type ClientOptions } from "./client.ts";
import type { KubeObject } from "./types.ts";

export interface FakeAnswer {
  status?: number;
  body: unknown;
  headers?: Record<string, string>;
}

export interface FakeWatch {
  query: URLSearchParams;
  send(type: string, object: unknown): void;
  /** In good order, as a server does when its time is over. */
  end(): void;
  /** Like a cable that is cut. */
  cut(): void;
}

export class FakeApi {
  /** Answers everything but watches. */
  answer: (method: string, path: string, query: URLSearchParams, body: string) => FakeAnswer | Promise<FakeAnswer> = () =>
    list([], "1");
  /** Answers instead of opening a watch; undefined opens it. */
  refuseWatch: (query: URLSearchParams) => FakeAnswer | undefined = () => undefined;
  readonly requests: string[] = [];
  readonly watches: FakeWatch[] = [];
  readonly #server = createServer((request, response) => {
    const url = new URL(request.url ?? "/", "http://fake");
    const chunks: Buffer[] = [];
    request.on("data", (chunk: Buffer) => chunks.push(chunk));
    request.on("end", () => {
      this.requests.push(`${request.method} ${url.pathname}${url.search}`);
      if (url.searchParams.get("watch") === "true") this.#openWatch(url.searchParams, response);
      else void this.#reply(request.method ?? "", url, Buffer.concat(chunks).toString(), response);
    });
  });
  #port = 0;

  async start(options: ClientOptions = {}): Promise<KubeClient> {
    await new Promise<void>((resolve) => this.#server.listen(this.#port, "127.0.0.1", resolve));
    this.#port = (this.#server.address() as AddressInfo).port;
    return new KubeClient(
      {
        server: `http://127.0.0.1:${this.#port}`,
        namespace: undefined,
        access: () => Promise.resolve({ headers: { Authorization: "Bearer x" }, tls: {}, identity: "x" }),
      },
      options,
    );
  }

  /** Breaks every connection; `start` listens at the same port again. */
  async stop(): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise<void>((resolve) => void this.#server.close(() => resolve()));
  }

  async #reply(method: string, url: URL, body: string, response: ServerResponse): Promise<void> {
    const answer = await this.answer(method, url.pathname, url.searchParams, body);
    response
      .writeHead(answer.status ?? 200, { "Content-Type": "application/json", ...answer.headers })
      .end(JSON.stringify(answer.body));
  }

  #openWatch(query: URLSearchParams, response: ServerResponse): void {
    const refusal = this.refuseWatch(query);
    if (refusal) {
      response.writeHead(refusal.status ?? 500, { "Content-Type": "application/json" }).end(JSON.stringify(refusal.body));
      return;
    }
    response.writeHead(200, { "Content-Type": "application/json" });
    response.flushHeaders();
    this.watches.push({
      query,
      send: (type, object) => void response.write(`${JSON.stringify({ type, object })}\n`),
      end: () => void response.end(),
      cut: () => void response.destroy(),
    });
  }
}

export const list = (items: KubeObject[], resourceVersion: string, next?: string): FakeAnswer => ({
  body: { kind: "List", metadata: { resourceVersion, ...(next === undefined ? {} : { continue: next }) }, items },
});

export const status = (code: number, reason: string, message: string): FakeAnswer => ({
  status: code,
  body: { kind: "Status", code, reason, message },
});

export const pod = (name: string, uid: string, resourceVersion: string): KubeObject => ({
  apiVersion: "v1",
  kind: "Pod",
  metadata: { namespace: "ns", name, uid, resourceVersion },
});
