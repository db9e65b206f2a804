/** Finds OVN's northbound database by the EndpointSlices of its Service: neither cluster DNS nor kube-proxy is needed. */
import { type EndpointSlice, Informer, type KubeClient, resources } from "../../kube/index.ts";
import type { Remote } from "../../ovsdb/index.ts";

const PORT_NAME = "nb";
const DEFAULT_PORT = 6641;

/** Where the database listens; endpoints that are ready first, the others behind them, for readiness may lag. Pure. */
export const remotesOf = (slices: readonly EndpointSlice[], tls: boolean): Remote[] => {
  const found = new Map<string, { remote: Remote; ready: boolean }>();
  for (const slice of slices) {
    if (slice.addressType === "FQDN") continue;
    const port = slice.ports?.find(({ name }) => name === PORT_NAME)?.port ?? DEFAULT_PORT;
    for (const { addresses, conditions } of slice.endpoints ?? []) {
      for (const host of addresses) {
        found.set(`${host} ${port}`, { remote: { kind: tls ? "ssl" : "tcp", host, port }, ready: conditions?.ready !== false });
      }
    }
  }
  const all = [...found.values()];
  return [...all.filter(({ ready }) => ready), ...all.filter(({ ready }) => !ready)].map(({ remote }) => remote);
};

/** Watches the slices of one Service. The caller starts it. */
export const endpointInformer = (client: KubeClient, service: { namespace: string; name: string }): Informer<EndpointSlice> =>
  new Informer(client, resources.endpointSlices, {
    namespace: service.namespace,
    labelSelector: `kubernetes.io/service-name=${service.name}`,
  });
