/** Where an OVSDB server listens, and how to reach it. */
import net from "node:net";
import type { Duplex } from "node:stream";
import tls from "node:tls";

export type Remote =
  | { readonly kind: "unix"; readonly path: string }
  | { readonly kind: "tcp"; readonly host: string; readonly port: number }
  | { readonly kind: "ssl"; readonly host: string; readonly port: number };

/** PEM texts. The server's chain must end in `ca`; its name is compared only if `serverName` is given (OVS itself never does). */
export interface TlsFiles {
  readonly ca: string;
  readonly cert: string;
  readonly key: string;
  readonly serverName?: string;
}

const DEFAULT_PORT = 6640;

/** A remote as OVS writes it: "unix:/path", "tcp:host[:port]", "ssl:host[:port]", IPv6 in brackets. Throws with what is wrong. */
export const parseRemote = (text: string): Remote => {
  const colon = text.indexOf(":");
  const [kind, rest] = [text.slice(0, Math.max(colon, 0)), text.slice(colon + 1)];
  if (kind === "unix" && rest.startsWith("/")) return { kind, path: rest };
  if (kind === "tcp" || kind === "ssl") {
    const match = /^(?:\[([0-9a-fA-F:.]+)\]|([^:[\]\s]+))(?::(\d{1,5}))?$/.exec(rest);
    const host = match?.[1] ?? match?.[2];
    const port = Number(match?.[3] ?? DEFAULT_PORT);
    if (host !== undefined && port >= 1 && port <= 65_535) return { kind, host, port };
  }
  throw new Error(
    `"${text}" is not an OVSDB remote; write unix:/path, tcp:host:port or ssl:host:port, an IPv6 address in brackets`,
  );
};

/** The remote as OVS writes it. */
export const remoteText = (remote: Remote): string => {
  if (remote.kind === "unix") return `unix:${remote.path}`;
  return `${remote.kind}:${remote.host.includes(":") ? `[${remote.host}]` : remote.host}:${remote.port}`;
};

const open = (remote: Remote, files: TlsFiles | undefined): { stream: net.Socket; ready: string } => {
  if (remote.kind === "unix") return { stream: net.connect({ path: remote.path }), ready: "connect" };
  if (remote.kind === "tcp") return { stream: net.connect({ host: remote.host, port: remote.port }), ready: "connect" };
  if (!files) throw new Error(`${remoteText(remote)} needs a CA, a certificate and a key`);
  const stream = tls.connect({
    host: remote.host,
    port: remote.port,
    ca: files.ca,
    cert: files.cert,
    key: files.key,
    minVersion: "TLSv1.2",
    ...(files.serverName === undefined ? { checkServerIdentity: () => undefined } : { servername: files.serverName }),
  });
  return { stream, ready: "secureConnect" };
};

/** Connects within the deadline; rejects with the system's own words and the remote's name, leaving nothing open. */
export const connectRemote = (
  remote: Remote,
  opts: { tls?: TlsFiles | undefined; timeoutMs: number; signal: AbortSignal },
): Promise<Duplex> =>
  new Promise((resolve, reject) => {
    let stream: net.Socket;
    const deadline = AbortSignal.any([opts.signal, AbortSignal.timeout(opts.timeoutMs)]);
    const fail = (cause: unknown): void => {
      stream?.destroy();
      const why = opts.signal.aborted ? "stopped" : deadline.aborted ? `no connection within ${opts.timeoutMs} ms` : text(cause);
      reject(new Error(`cannot connect to ${remoteText(remote)}: ${why}`, { cause }));
    };
    if (deadline.aborted) return fail(deadline.reason);
    try {
      const opened = open(remote, opts.tls);
      stream = opened.stream;
      const onAbort = (): void => fail(deadline.reason);
      const onClose = (): void => fail(new Error("the server closed the connection"));
      deadline.addEventListener("abort", onAbort, { once: true });
      stream.once("error", fail);
      stream.once("close", onClose);
      stream.once(opened.ready, () => {
        deadline.removeEventListener("abort", onAbort);
        stream.off("close", onClose);
        // The error listener stays until the session has set its own: an unheard error would end the process.
        stream.setNoDelay(true);
        resolve(stream);
      });
    } catch (error) {
      fail(error);
    }
  });

const text = (error: unknown): string => {
  if (error instanceof AggregateError && error.message === "") return error.errors.map(String).join("; ");
  return error instanceof Error ? error.message : String(error);
};
