/** What QEMU's programs read of a move's key: the files of their directory, and what they may agree on. */
import { getDiffieHellman } from "node:crypto";
import type { MoveSecret } from "./move.ts";

const IDENTITY = /^[A-Za-z0-9_-]{1,64}$/;
const KEY = /^([0-9a-f]{2}){16,64}$/;

/** Names are QEMU's own. */
const KEY_FILE = "keys.psk";
const PARAMETERS_FILE = "dh-params.pem";

/** TLS 1.3 only, the cipher that costs least first; QEMU adds key exchanges that have no certificates. */
export const PRIORITY = "NORMAL:-VERS-ALL:+VERS-TLS1.3:-CIPHER-ALL:+AES-128-GCM:+AES-256-GCM:+CHACHA20-POLY1305";

/**
 * Content of each file of the directory, by its name.
 * @throws TypeError for a name or a key that would not stay on its line
 */
export function keyFiles({ identity, key }: MoveSecret): readonly { name: string; content: string }[] {
  if (!IDENTITY.test(identity) || !KEY.test(key)) throw new TypeError("not a name and a hex key of 128 to 512 bits");
  return [
    { name: KEY_FILE, content: `${identity}:${key}\n` },
    { name: PARAMETERS_FILE, content: PARAMETERS },
  ];
}

/** One DER value; all lengths here take two bytes or fewer. */
function der(tag: number, content: Uint8Array): Buffer {
  const { length } = content;
  const size = length < 0x80 ? [length] : length < 0x100 ? [0x81, length] : [0x82, length >> 8, length & 0xff];
  return Buffer.concat([Buffer.from([tag, ...size]), content]);
}

/** Not negative: its first bit is not set. */
const integer = (bytes: Uint8Array): Buffer =>
  der(0x02, (bytes[0] ?? 0) < 0x80 ? bytes : Buffer.concat([Buffer.from([0]), bytes]));

/**
 * The group of 2048 bits of RFC 3526 as PKCS #3 has it. TLS 1.3 has groups of its own and uses none of it, but a server's credentials have to
 * have one, and where there is no such file QEMU 10.0 looks for a new prime each time: 60 to 550 ms of a processor, measured.
 */
const PARAMETERS = ((): string => {
  const group = getDiffieHellman("modp14");
  const sequence = der(0x30, Buffer.concat([integer(group.getPrime()), integer(group.getGenerator())]));
  const lines = sequence.toString("base64").match(/.{1,64}/g) ?? [];
  return ["-----BEGIN DH PARAMETERS-----", ...lines, "-----END DH PARAMETERS-----", ""].join("\n");
})();
