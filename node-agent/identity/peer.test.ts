/** Two ends of a real TLS connection. */
import { randomBytes, X509Certificate } from "node:crypto";
import { once } from "node:events";
import type { AddressInfo } from "node:net";
import { connect, createServer, type ConnectionOptions, type TLSSocket, type TlsOptions } from "node:tls";
import { beforeAll, describe, expect, it } from "vitest";
import type { CertificateRole } from "../../crds/certificates.ts";
import { Authority, type AuthorityFiles } from "../../operator/certificates/authority.ts";
import { withAuthority } from "../../operator/certificates/fixtures.ts";
import { readRequest } from "../../operator/certificates/request.ts";
import { readAnswer, type IdentityMaterial } from "./certificate.ts";
import { peerClientOptions, peerNode, peerRefusal, peerServerOptions } from "./peer.ts";
import { makeRequest } from "./request.ts";

const DAY = 24 * 3600_000;
let ours: AuthorityFiles;
let foreign: AuthorityFiles;
let n1: IdentityMaterial;
let n2: IdentityMaterial;

const issue = async (node: string, role: CertificateRole = "agent", now = Date.now(), files = ours) => {
  const { key, request } = await makeRequest(node, role);
  const grant = { node, role, publicKey: readRequest(request).publicKey, validMs: 10 * DAY, now, serial: randomBytes(16) };
  return readAnswer(new Authority(files).issue(grant), key, { node, role });
};

beforeAll(async () => {
  [ours, foreign] = await Promise.all([withAuthority((one) => one), withAuthority((one) => one)]);
  [n1, n2] = await Promise.all([issue("n1"), issue("n2")]);
});

/** What each end made of the other. */
const meet = async (
  serverOptions: TlsOptions,
  clientOptions: ConnectionOptions,
  look = (socket: TLSSocket): string => peerNode(socket, Date.now()),
): Promise<{ server: string; client: string }> => {
  const server = createServer(serverOptions);
  const seen = Promise.withResolvers<string>();
  server.on("tlsClientError", (error, socket) => seen.resolve(`refused: ${peerRefusal(error, socket)}`));
  server.on("secureConnection", (socket) => {
    socket.on("error", () => socket.destroy());
    try {
      seen.resolve(look(socket));
      socket.end("welcome");
    } catch (error) {
      seen.resolve(`refused: ${error instanceof Error ? error.message : ""}`);
      socket.destroy();
    }
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  const socket = connect({ ...clientOptions, host: "127.0.0.1", port });
  const client = await new Promise<string>((resolve) => {
    let said = "";
    let node = "";
    socket.on("secureConnect", () => (node = peerNode(socket, Date.now())));
    socket.on("error", (error) => resolve(`refused: ${error.message}`));
    socket.on("data", (data) => (said += data.toString()));
    socket.on("close", () => resolve(said === "welcome" ? node : "closed"));
  });
  if (client.startsWith("refused: the agent")) seen.resolve("left alone");
  const result = { server: await seen.promise, client };
  server.close();
  return result;
};

describe("two agents", () => {
  it("know each other by their certificates", async () => {
    expect(await meet(peerServerOptions(n2), peerClientOptions(n1, "n2"))).toEqual({ server: "n1", client: "n2" });
  });

  it("lose nothing of the other's certificates by looking at them, which Node 24.21 never freed", async () => {
    const look = (socket: TLSSocket): string => {
      peerNode(socket, Date.now());
      // OpenSSL's own chain: it frees with the connection what is still in it
      return socket.getPeerX509Certificate()?.issuerCertificate?.subject ?? "lost";
    };
    const { server } = await meet(peerServerOptions(n2), peerClientOptions(n1, "n2"), look);
    expect(server).toBe(new X509Certificate(ours.cert).subject);
  });

  it("are refused with another node's certificate, at either end", async () => {
    const wrongServer = await meet(peerServerOptions(n2), peerClientOptions(n1, "n3"));
    expect(wrongServer.client).toBe("refused: the agent of node n3 was expected, but the other end is that of node n2");
    const expectN3 = (socket: TLSSocket): string => peerNode(socket, Date.now(), "n3");
    const wrongClient = await meet(peerServerOptions(n2), peerClientOptions(n1, "n2"), expectN3);
    expect(wrongClient.server).toBe("refused: the agent of node n3 was expected, but the other end is that of node n1");
    expect(wrongClient.client).not.toBe("n2");
  });

  it.each<[string, () => Promise<ConnectionOptions>, RegExp]>([
    [
      "an expired one",
      async () => peerClientOptions(await issue("n1", "agent", Date.now() - 11 * DAY), "n2"),
      /CERT_HAS_EXPIRED/,
    ],
    [
      "one that is not valid yet",
      async () => peerClientOptions(await issue("n1", "agent", Date.now() + DAY), "n2"),
      /CERT_NOT_YET_VALID/,
    ],
    [
      "one of another authority",
      async () => ({ ...peerClientOptions(await issue("n1", "agent", Date.now(), foreign), "n2"), ca: ours.cert }),
      /UNABLE_TO|SELF_SIGNED|SIGNATURE/,
    ],
    ["a switch's", async () => peerClientOptions(await issue("n1", "chassis"), "n2"), /is no node agent's/],
    [
      "none",
      async () => ({ ...peerClientOptions(n1, "n2"), key: undefined, cert: undefined }),
      /peer did not return a certificate/,
    ],
  ])("a client with %s is refused", async (_, options, words) => {
    const { server, client } = await meet(peerServerOptions(n2), await options());
    expect(server).toMatch(words);
    expect(client).not.toBe("n2");
  });

  it.each<[string, () => Promise<IdentityMaterial>, RegExp]>([
    ["an expired one", () => issue("n2", "agent", Date.now() - 11 * DAY), /certificate has expired/],
    [
      "one of another authority",
      async () => ({ ...(await issue("n2", "agent", Date.now(), foreign)), ca: ours.cert }),
      /unable to|self.signed/,
    ],
    ["a switch's", () => issue("n2", "chassis"), /unsuitable certificate purpose|unsupported certificate purpose/],
  ])("a server with %s is refused", async (_, material, words) => {
    const { client } = await meet(peerServerOptions(await material()), peerClientOptions(n1, "n2"));
    expect(client).toMatch(words);
  });

  it("is refused once its certificate has expired, even where TLS does not look again", async () => {
    const late = (socket: TLSSocket): string => peerNode(socket, Date.now() + 11 * DAY);
    const { server } = await meet(peerServerOptions(n2), peerClientOptions(n1, "n2"), late);
    expect(server).toContain("only; are the nodes' clocks right");
  });
});
