/** ovn-central's southbound endpoints, as ovn-controller takes them. Pure. */
import type { EndpointSlice } from "../../kube/index.ts";

const SOUTHBOUND_PORT = 6642;

/** `ssl:<address>:<port>,...`, sorted; undefined while nobody is there, so that what was known before is kept. */
export function southboundRemote(slices: readonly EndpointSlice[]): string | undefined {
  const remotes = slices.flatMap((slice) => {
    const port = slice.ports?.find((one) => one.name === "sb")?.port ?? SOUTHBOUND_PORT;
    return (slice.endpoints ?? [])
      .filter((endpoint) => endpoint.conditions?.ready !== false)
      .flatMap((endpoint) => endpoint.addresses.map((host) => `ssl:${host.includes(":") ? `[${host}]` : host}:${port}`));
  });
  return remotes.length === 0 ? undefined : [...new Set(remotes)].sort().join(",");
}
