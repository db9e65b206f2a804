/** Where the target's agent takes the source's: TLS with a node's certificate on both ends, one path for each attempt. */
import { createServer, STATUS_CODES, type IncomingMessage } from "node:http";
import { createServer as createTlsServer, type Server, type TLSSocket } from "node:tls";
import type { AddressInfo, Socket } from "node:net";
import type { Duplex } from "node:stream";
import { WebSocketServer } from "ws";
import type { Clock, Logger } from "../../../kube/index.ts";
import { errorText } from "../../errors.ts";
import type { NodeIdentity } from "../../identity/identity.ts";
import { peerNode, peerServerOptions } from "../../identity/peer.ts";
import { Link } from "./link.ts";
import { LARGEST_MESSAGE, sourceMessage, type SourceMessage, type TargetMessage } from "./messages.ts";

export type TargetLink = Link<TargetMessage, SourceMessage>;

/** Whom an attempt takes, and what it does with the connection. */
export interface Reception {
  /** The node whose agent may talk. */
  sourceNode: string;
  /** A second connection of the same attempt replaces the first. */
  take: (link: TargetLink) => void;
}

export interface ChannelServerOptions {
  address: string;
  /** 0: any. */
  port: number;
  identity: NodeIdentity;
  /** The attempt that waits here under this path, if there is one. */
  reception: (migrationUid: string, attempt: number) => Reception | undefined;
  clock: Clock;
  log: Logger;
}

const PATH = /^\/move\/([0-9a-f-]{36})\/([1-9][0-9]{0,8})$/;
/** From the first byte until the request is there, ms; TLS included. */
const HANDSHAKE_MS = 5_000;
/** Connections that are not a move's yet. */
const MOST_CONNECTIONS = 64;

export class ChannelServer {
  readonly #options: ChannelServerOptions;
  readonly #sockets = new WebSocketServer({
    noServer: true,
    maxPayload: LARGEST_MESSAGE,
    perMessageDeflate: false,
    clientTracking: false,
  });
  readonly #links = new Map<string, TargetLink>();
  /** All that is connected, whatever it has become. */
  readonly #connected = new Set<Socket>();
  #server: Server | undefined;
  #forget: (() => void) | undefined;

  constructor(options: ChannelServerOptions) {
    this.#options = options;
  }

  /** Resolves with the port when it listens; waits for the node's first certificate. */
  async start(signal: AbortSignal): Promise<number> {
    const { identity, address, port, log } = this.#options;
    const http = createServer({ headersTimeout: HANDSHAKE_MS, requestTimeout: HANDSHAKE_MS }, (_, response) =>
      response.writeHead(426, { connection: "close" }).end("this is where agents of nodes talk about moves\n"),
    );
    http.on("upgrade", (request, socket, head) => this.#upgrade(request, socket, head));
    http.on("clientError", (_, socket) => socket.destroy());
    const server = createTlsServer({ ...peerServerOptions(await identity.ready(signal)), handshakeTimeout: HANDSHAKE_MS });
    server.maxConnections = MOST_CONNECTIONS;
    server.on("connection", (socket) => {
      this.#connected.add(socket);
      socket.once("close", () => this.#connected.delete(socket));
    });
    server.on("secureConnection", (socket) => {
      socket.setNoDelay(true);
      socket.setTimeout(HANDSHAKE_MS, () => socket.destroy());
      http.emit("connection", socket);
    });
    server.on("tlsClientError", (error, socket) => {
      log.warn({ from: socket.remoteAddress, error: errorText(error) }, "a connection without a node's certificate was refused");
      socket.destroy();
    });
    this.#forget = identity.onChange((material) => server.setSecureContext(peerServerOptions(material)));
    this.#server = server;
    await new Promise<void>((resolve, reject) => {
      server.once("error", reject);
      server.listen({ host: address, port }, () => {
        server.off("error", reject);
        resolve();
      });
    });
    server.on("error", (error) => log.error({ error: errorText(error) }, "the agents' channel has a problem"));
    return (server.address() as AddressInfo).port;
  }

  /** Ends all connections: the other ends hear that this agent goes, and come again. */
  async close(): Promise<void> {
    this.#forget?.();
    for (const link of this.#links.values()) link.close("this agent ends; another one follows");
    this.#sockets.close();
    const server = this.#server;
    if (server === undefined) return;
    const closed = new Promise<void>((resolve) => void server.close(() => resolve()));
    // What was said last is on its way first.
    setImmediate(() => {
      for (const socket of this.#connected) socket.destroySoon();
    });
    await closed;
  }

  #upgrade(request: IncomingMessage, socket: Duplex, head: Buffer): void {
    const { log, clock, reception } = this.#options;
    socket.on("error", () => socket.destroy());
    const tls = request.socket as TLSSocket;
    try {
      const node = peerNode(tls, clock.now());
      const [, uid, attempt] = PATH.exec(request.url ?? "") ?? [];
      if (uid === undefined || attempt === undefined) return refuse(socket, 404, "no such path");
      const found = reception(uid, Number(attempt));
      if (found === undefined) return refuse(socket, 503, "no such move is expected here (yet)");
      if (found.sourceNode !== node) {
        log.warn({ migration: uid, node, expected: found.sourceNode }, "an agent of another node was refused at a move");
        return refuse(socket, 403, `this move is expected from node ${found.sourceNode}`);
      }
      tls.setTimeout(0);
      this.#sockets.handleUpgrade(request, socket, head, (ws) => {
        const link: TargetLink = new Link({ socket: ws, incoming: sourceMessage, clock, log });
        this.#replace(`${uid}/${attempt}`, link);
        found.take(link);
      });
    } catch (error) {
      log.warn({ from: tls.remoteAddress, error: errorText(error) }, "a connection was refused");
      refuse(socket, 403, "only agents of nodes may connect");
    }
  }

  #replace(key: string, link: TargetLink): void {
    const before = this.#links.get(key);
    this.#links.set(key, link);
    before?.close("replaced by a newer connection");
    link.onClose(() => {
      if (this.#links.get(key) === link) this.#links.delete(key);
    });
  }
}

function refuse(socket: Duplex, status: number, words: string): void {
  const head = [`HTTP/1.1 ${status} ${STATUS_CODES[status] ?? ""}`, "Connection: close", "Content-Type: text/plain"];
  socket.end(`${head.join("\r\n")}\r\nContent-Length: ${Buffer.byteLength(words)}\r\n\r\n${words}`);
}
