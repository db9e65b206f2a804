import { describe, expect, it } from "vitest";
import { addressCheck } from "./address.ts";

const check = addressCheck({ denied: ["10.96.0.0/12", "fd00:10:96::/112", "192.168.7.7"] });

describe("addressCheck", () => {
  it.each([
    "127.0.0.1",
    "127.8.8.8",
    "0.0.0.0",
    "169.254.169.254",
    "100.100.100.200",
    "168.63.129.16",
    "224.0.0.1",
    "255.255.255.255",
    "10.96.0.1",
    "10.111.255.255",
    "192.168.7.7",
    "::",
    "::1",
    "fe80::1",
    "fe80::1%eth0",
    "ff02::1",
    "fd00:ec2::254",
    "fd00:10:96::1",
    "::ffff:127.0.0.1",
    "::ffff:10.96.0.1",
    "::127.0.0.1",
    "64:ff9b::7f00:1",
    "64:ff9b::a9fe:a9fe",
    "2002:7f00:1::",
    "localhost",
    "",
  ])("refuses %s", (address) => expect(check(address)).toBeTypeOf("string"));

  it.each([
    "10.0.0.1",
    "10.112.0.1",
    "192.168.1.10",
    "172.16.0.1",
    "100.64.0.1",
    "8.8.8.8",
    "fd00::1",
    "2001:db8::1",
    "::ffff:10.0.0.1",
  ])("allows %s", (address) => expect(check(address)).toBeUndefined());

  it("allows loopback only when a test asks for it, and nothing else with it", () => {
    const loose = addressCheck({ allowLoopback: true });
    expect(loose("127.0.0.1")).toBeUndefined();
    expect(loose("::1")).toBeUndefined();
    expect(loose("169.254.169.254")).toBeTypeOf("string");
  });

  it("lets an administrator open a range, but never loopback", () => {
    const open = addressCheck({ denied: ["10.96.0.0/12"], allowed: ["10.96.7.0/24", "169.254.10.1", "127.0.0.0/8", "::/0"] });
    expect(open("10.96.7.1")).toBeUndefined();
    expect(open("169.254.10.1")).toBeUndefined();
    expect(open("10.96.0.1")).toBeTypeOf("string");
    expect(open("127.0.0.1")).toBe("loopback");
    expect(open("::1")).toBe("loopback");
  });

  it("names a range that is none", () => expect(() => addressCheck({ denied: ["10.96/x"] })).toThrow("'10.96/x' is not a range"));
});
