import type { Mover } from "../mover.ts";
import type { GuestPort } from "../network.ts";
export interface LibvirtWish {
  name: string;
  node: string;
  port: GuestPort;
  argv: readonly string[];
  pool: string;
  image: string;
  diskBytes: number;
}
export interface LibvirtHosts {
  start(wish: LibvirtWish): Promise<Mover>;
}
export const withLibvirt = async (
  tls: boolean | undefined,
  work: (hosts: LibvirtHosts | undefined) => Promise<void>,
): Promise<void> => {
  void tls;
  await work(undefined);
};
