/** Command lines of the two programs that carry a disk: one gives out empty disks at the target, one fills them. Pure. */
import { inherited, inheritedImage } from "../../image/inherited.ts";
import { PRIORITY } from "../../instance/move-key.ts";
import type { MoveSecret } from "../../instance/move.ts";
import type { GuestIdentity } from "../../types.ts";

/** Export to which the sender writes last of all: whoever reads it knows that all disks are whole. */
export const MARKER = "move-complete";
/** Of the marker; the least that NBD can do. */
export const MARKER_BYTES = 512;
const TEXT = "drover: all disks have been copied\n";
export const markerContent = (): Buffer => Buffer.alloc(MARKER_BYTES, TEXT.padEnd(MARKER_BYTES, "\0"));

/** Where the program finds the key in its own root directory. */
export const KEY_DIRECTORY = "/key";

const MIB = 1024 ** 2;

function credentials(endpoint: "server" | "client", secret: MoveSecret): string {
  const name = endpoint === "client" ? `,username=${secret.identity}` : "";
  return `tls-creds-psk,id=tls,endpoint=${endpoint},dir=${KEY_DIRECTORY},priority=${PRIORITY}${name}`;
}

/** Gives out its open files, in their order, under these names; speaks first when it listens. */
export function exporter(
  exports: readonly string[],
  place: { address: string; port: number; secret: MoveSecret | undefined },
): string[] {
  const { address, port, secret } = place;
  const tls = secret === undefined ? "" : ",tls-creds=tls";
  return [
    "qemu-storage-daemon",
    ...(secret === undefined ? [] : ["--object", credentials("server", secret)]),
    ...exports.flatMap((_, index) => [
      "--blockdev",
      `driver=file,node-name=file${index},filename=${inherited(index)},locking=off,aio=threads,discard=unmap`,
      "--blockdev",
      `driver=raw,node-name=disk${index},file=file${index},discard=unmap,detect-zeroes=unmap`,
    ]),
    "--nbd-server",
    `addr.type=inet,addr.host=${address},addr.port=${port},max-connections=${exports.length + 2}${tls}`,
    ...exports.flatMap((name, index) => [
      "--export",
      `type=nbd,id=export${index},node-name=disk${index},name=${name},writable=on`,
    ]),
    // Its greeting on standard output says that all of the above is done.
    "--chardev",
    "stdio,id=monitor",
    "--monitor",
    "monitor",
  ];
}

/** Copies its one open file into an export; holes stay holes. Tells its progress on standard output. */
export function sender(
  name: string,
  place: { address: string; port: number; secret: MoveSecret | undefined; maxBytesPerSecond: number | undefined },
): string[] {
  const { address, port, secret, maxBytesPerSecond } = place;
  const tls = secret === undefined ? "" : ",tls-creds=tls";
  const target = `driver=nbd,server.type=inet,server.host=${address},server.port=${port},export=${name}${tls}`;
  return [
    "qemu-img",
    "convert",
    "-p",
    "-n",
    ...(secret === undefined ? [] : ["--object", credentials("client", secret)]),
    ...(maxBytesPerSecond === undefined ? [] : ["-r", String(maxBytesPerSecond)]),
    "--image-opts",
    "--target-image-opts",
    inheritedImage("raw", 0),
    target,
  ];
}

/** Copies its first open file into its second, of the same size, which may have had another content; holes stay holes. */
export const copier = (maxBytesPerSecond: number | undefined): string[] => [
  "qemu-img",
  "convert",
  "-p",
  "-n",
  ...(maxBytesPerSecond === undefined ? [] : ["-r", String(maxBytesPerSecond)]),
  "--image-opts",
  "--target-image-opts",
  inheritedImage("raw", 0),
  inheritedImage("raw", 1),
];

/**
 * The program with nothing but its open files, a network and a key: the guest's own user, a root directory of programs, limits of
 * memory, file size and descriptors, no capability, and it ends with the agent.
 */
export function confined(
  root: string,
  user: GuestIdentity,
  largestBytes: number,
  program: readonly string[],
): [string, string[]] {
  const limits = [`--as=${2048 * MIB}`, `--fsize=${largestBytes + MIB}`, "--nofile=128", "--core=0"];
  const identity = [
    `--reuid=${user.uid}`,
    `--regid=${user.gid}`,
    "--clear-groups",
    "--inh-caps=-all",
    "--bounding-set=-all",
    "--no-new-privs",
    "--pdeathsig=KILL",
  ];
  const steps = ["nice", "-n", "10", "prlimit", ...limits, "--", "setpriv", ...identity, "--", ...program];
  return ["unshare", ["--ipc", `--root=${root}`, "--", ...steps]];
}

/** Share that is done, from what qemu-img prints: "(12.34/100%)"; undefined: it says none. */
export function progressOf(text: string): number | undefined {
  const last = [...text.matchAll(/\((\d+(?:\.\d+)?)\/100%\)/g)].at(-1)?.[1];
  return last === undefined ? undefined : Number(last) / 100;
}
