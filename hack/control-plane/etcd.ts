/** etcd's command line. */
import path from "node:path";
import { certificateFiles } from "./pki.ts";
import type { Command, Place } from "./types.ts";

export interface EtcdOptions {
  /** Keep what is acknowledged over a power cut of the machine; a lab does not need it and is faster without. */
  durable?: boolean;
  flags?: string[];
}

/** Clients need a certificate of our CA: another lab's API server that dials the wrong port is refused instead of sharing the store. */
export const etcdCommand = (place: Place, options: EtcdOptions = {}): Command => {
  const { cert, key } = certificateFiles(place.pki, "apiserver");
  const client = etcdUrl(place);
  const peer = `http://127.0.0.1:${place.ports.etcdPeer}`;
  return {
    name: "etcd",
    command: path.join(place.binaries, "etcd"),
    args: [
      "--name=lab",
      `--data-dir=${path.join(place.directory, "etcd")}`,
      `--listen-client-urls=${client}`,
      `--advertise-client-urls=${client}`,
      `--listen-peer-urls=${peer}`,
      `--initial-advertise-peer-urls=${peer}`,
      `--initial-cluster=lab=${peer}`,
      "--client-cert-auth",
      `--trusted-ca-file=${place.pki.ca}`,
      `--cert-file=${cert}`,
      `--key-file=${key}`,
      "--log-level=warn",
      ...(options.durable ? [] : ["--unsafe-no-fsync"]),
      ...(options.flags ?? []),
    ],
  };
};

/** Always on the loopback of the network namespace it runs in. */
export const etcdUrl = (place: Place): string => `https://127.0.0.1:${place.ports.etcdClient}`;
