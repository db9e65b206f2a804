/** Until when a node's certificate is valid, for whoever watches over clusters. */
import { Gauge, type Registry } from "prom-client";

export function exposeCertificate(registry: Registry, identity: { expires: number | undefined }): void {
  const expiry = new Gauge({
    name: "drover_node_certificate_expiry_seconds",
    help: "When this process's certificate expires, in seconds since 1970; 0 while it has none.",
    collect() {
      this.set((identity.expires ?? 0) / 1000);
    },
    registers: [],
  });
  registry.registerMetric(expiry);
}
