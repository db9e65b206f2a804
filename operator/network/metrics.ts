/** What the room tells of its work with OVN's northbound database. */
import { Counter, Gauge } from "prom-client";
import { registry } from "../../kube/index.ts";

const registers = [registry];

export const northboundConnected = new Gauge({
  name: "drover_ovn_northbound_connected",
  help: "1 while OVN's northbound database is connected.",
  registers,
});

export const northboundTransactions = new Counter({
  name: "drover_ovn_northbound_transactions_total",
  help: "Transactions sent to OVN's northbound database, by result: done, overtaken (by another writer), refused, lost.",
  labelNames: ["result"],
  registers,
});
