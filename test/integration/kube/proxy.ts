/** A TCP proxy with faults: passes bytes on, swallows what the server says, or lets nobody through. */
import { createConnection, createServer, type AddressInfo, type Socket } from "node:net";

export class FaultyProxy {
  readonly port: number;
  /** Bytes from the server that were swallowed. */
  swallowed = 0;
  /** Connections that were turned away. */
  refused = 0;
  #open = true;
  readonly #pairs = new Set<{ client: Socket; server: Socket; mute: boolean }>();
  readonly #server = createServer();

  private constructor(port: number) {
    this.port = port;
  }

  static async to(target: number): Promise<FaultyProxy> {
    const probe = createServer();
    await new Promise<void>((resolve) => void probe.listen(0, "127.0.0.1", resolve));
    const { port } = probe.address() as AddressInfo;
    await new Promise<void>((resolve) => void probe.close(() => resolve()));
    const proxy = new FaultyProxy(port);
    proxy.#server.on("connection", (client) => proxy.#connect(client, target));
    await new Promise<void>((resolve) => void proxy.#server.listen(port, "127.0.0.1", resolve));
    return proxy;
  }

  get connections(): number {
    return this.#pairs.size;
  }

  /** From now on nothing that the server says on the present connections arrives; they stay open. New ones are not affected. */
  swallow(): void {
    for (const pair of this.#pairs) pair.mute = true;
  }

  /** Breaks all connections and turns away new ones, until `reopen`. */
  shut(): void {
    this.#open = false;
    for (const { client, server } of this.#pairs) {
      client.destroy();
      server.destroy();
    }
  }

  reopen(): void {
    this.#open = true;
  }

  async close(): Promise<void> {
    this.shut();
    await new Promise<void>((resolve) => void this.#server.close(() => resolve()));
  }

  #connect(client: Socket, target: number): void {
    if (!this.#open) {
      this.refused++;
      client.destroy();
      return;
    }
    const server = createConnection(target, "127.0.0.1");
    const pair = { client, server, mute: false };
    this.#pairs.add(pair);
    client.on("data", (chunk) => void server.write(chunk));
    server.on("data", (chunk) => {
      if (pair.mute) this.swallowed += chunk.length;
      else client.write(chunk);
    });
    for (const [one, other] of [
      [client, server],
      [server, client],
    ] as const) {
      // A broken connection is what this is for: the other side learns of it by its own being closed.
      one.on("error", () => other.destroy());
      one.on("close", () => {
        other.destroy();
        this.#pairs.delete(pair);
      });
    }
  }
}
