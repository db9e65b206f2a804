import { describe, expect, it } from "vitest";
import { connectRemote, parseRemote, remoteText } from "./remote.ts";

describe.each([
  ["unix:/run/openvswitch/db.sock", { kind: "unix", path: "/run/openvswitch/db.sock" }],
  ["tcp:10.0.0.1:6641", { kind: "tcp", host: "10.0.0.1", port: 6641 }],
  ["ssl:[fd00::1]:6641", { kind: "ssl", host: "fd00::1", port: 6641 }],
  ["ssl:ovn-central:6641", { kind: "ssl", host: "ovn-central", port: 6641 }],
])("%s", (text, remote) => {
  it("is read, and written the same", () => {
    expect(parseRemote(text)).toEqual(remote);
    expect(remoteText(parseRemote(text))).toBe(text);
  });
});

it("has OVSDB's own port for a default", () => expect(parseRemote("tcp:h")).toEqual({ kind: "tcp", host: "h", port: 6640 }));

it.each(["", "unix:relative", "http://x", "tcp:", "tcp:h:0", "tcp:h:99999", "tcp:fd00::1:6641", "ssl:a b"])(
  "refuses %j",
  (text) => {
    expect(() => parseRemote(text)).toThrow(/write unix:\/path, tcp:host:port or ssl:host:port/);
  },
);

it("says what it could not reach", async () => {
  const { signal } = new AbortController();
  await expect(connectRemote(parseRemote("unix:/nowhere/db.sock"), { timeoutMs: 1000, signal })).rejects.toThrow(
    /cannot connect to unix:\/nowhere\/db.sock: .*ENOENT/,
  );
  await expect(connectRemote(parseRemote("ssl:127.0.0.1:1"), { timeoutMs: 1000, signal })).rejects.toThrow(/needs a CA/);
});
