/** The source's agent calls the target's. */
import { connect } from "node:tls";
import { WebSocket } from "ws";
import type { Clock, Logger } from "../../../kube/index.ts";
import { UserError } from "../../errors.ts";
import type { IdentityMaterial } from "../../identity/certificate.ts";
import { peerClientOptions } from "../../identity/peer.ts";
import { Link } from "./link.ts";
import { LARGEST_MESSAGE, targetMessage, type SourceMessage, type TargetMessage } from "./messages.ts";

export type SourceLink = Link<SourceMessage, TargetMessage>;

export interface CallOptions {
  /** host:port, as the target says it. */
  endpoint: string;
  migrationUid: string;
  attempt: number;
  targetNode: string;
  identity: IdentityMaterial;
  clock: Clock;
  log: Logger;
  signal: AbortSignal;
}

/** From the call until the connection stands, ms. */
const HANDSHAKE_MS = 5_000;

/** Throws with the reason when the target's agent cannot be reached, is another node's, or does not expect this attempt. */
export async function callTarget(options: CallOptions): Promise<SourceLink> {
  const { endpoint, migrationUid, attempt, targetNode, identity, clock, log, signal } = options;
  signal.throwIfAborted();
  const url = new URL(`wss://${endpoint}/move/${migrationUid}/${attempt}`);
  const place = { host: url.hostname.replace(/^\[|\]$/g, ""), port: Number(url.port) };
  const socket = new WebSocket(url, {
    createConnection: () => connect({ ...peerClientOptions(identity, targetNode), ...place }).setNoDelay(true),
    handshakeTimeout: HANDSHAKE_MS,
    maxPayload: LARGEST_MESSAGE,
    perMessageDeflate: false,
    followRedirects: false,
  });
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  const aborted = (): void => reject(signal.reason);
  signal.addEventListener("abort", aborted, { once: true });
  socket.once("open", resolve);
  socket.once("error", (cause) =>
    reject(new UserError("TargetUnreachable", `the agent of node ${targetNode} cannot be reached`, { cause })),
  );
  socket.once("unexpected-response", (_, response) => {
    response.resume();
    reject(
      new UserError("TargetRefused", `the agent of node ${targetNode} refused the connection (${response.statusCode ?? 0})`),
    );
  });
  try {
    await promise;
  } catch (error) {
    // Ended while it begins, it says so once more.
    socket.on("error", () => undefined);
    socket.terminate();
    throw error;
  } finally {
    signal.removeEventListener("abort", aborted);
  }
  socket.removeAllListeners();
  return new Link<SourceMessage, TargetMessage>({ socket, incoming: targetMessage, clock, log });
}
