/** Stands in for the network's side of the operator. */
import type { Instance, NicStatus } from "../../../crds/instance.ts";
import { portName } from "../../../crds/names.ts";
import type { Network } from "../../../crds/network.ts";
import { keyOf, keyText, type ObjectKey } from "../../../kube/index.ts";
import type { OperatorContext } from "../../../operator/context.ts";
import type { NetworkTerm } from "../../../operator/term.ts";

/** Gives addresses and counts ports; keeps, as OVN does, what it was given when the operator dies. */
export class NetworkStandIn {
  readonly ports = new Map<string, string>();
  #next = 2;

  term = (ctx: OperatorContext): NetworkTerm => {
    const given = new Map<string, NicStatus[]>();
    const missing = (instance: Instance): string | undefined =>
      instance.spec.nics?.find(
        ({ network }) => ctx.networks.get({ namespace: instance.metadata.namespace, name: network }) === undefined,
      )?.network;
    const assign = (instance: Instance): NicStatus[] =>
      (instance.spec.nics ?? []).map(({ name, network }) => {
        const { namespace = "", uid } = instance.metadata;
        const last = this.#next++;
        const mac = `52:54:00:00:00:${last.toString(16).padStart(2, "0")}`;
        return {
          name,
          network,
          mac,
          ipv4: `10.10.0.${last}`,
          port: portName(namespace, instance.metadata.name, name, uid),
          mtu: 1442,
        };
      });
    return {
      addresses: {
        assign: (instance) => {
          const name = missing(instance);
          if (name !== undefined)
            return { problem: { reason: "NetworkNotFound", message: `there is no Network ${name}; make it` } };
          const { uid } = instance.metadata;
          const nics = instance.status?.nics ?? given.get(uid) ?? assign(instance);
          given.set(uid, nics);
          return { nics };
        },
        release: (uid) => void given.delete(uid),
      },
      ports: {
        ensurePorts: async (instance, opts) => {
          this.ports.set(instance.metadata.uid, (opts?.chassis ?? []).join(","));
          return { ready: true };
        },
        removePorts: async (instance) => void this.ports.delete(instance.metadata.uid),
      },
      onInstance: (fn) =>
        ctx.networks.onChange(({ key }: { key: ObjectKey; now?: Network }) => {
          for (const instance of ctx.instances.byIndex("network", keyText(key))) fn(keyOf(instance));
        }),
      start: (signal) => new Promise((resolve) => signal.addEventListener("abort", () => resolve(), { once: true })),
    };
  };
}
