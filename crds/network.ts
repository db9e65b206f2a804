import { z } from "zod";
import { conditions, doc, type KindDefinition, nameRules, type Resource } from "./schema.ts";

const unchanged = {
  rule: "self == oldSelf",
  message: "the addresses of a network cannot change; make a new network",
};

const ipv4 = z
  .object({
    cidr: z
      .string()
      .max(18)
      .meta(
        doc(
          "Its addresses, such as 10.10.0.0/24. The first one is the gateway.",
          {
            rule: "isCIDR(self) && cidr(self).ip().family() == 4",
            message: "ipv4.cidr is not an IPv4 network such as 10.10.0.0/24",
          },
          {
            rule: "!isCIDR(self) || cidr(self).masked() == cidr(self)",
            message: "ipv4.cidr is not a network address",
            messageExpression: "'%s is not a network address; did you mean %s?'.format([self, string(cidr(self).masked())])",
          },
          {
            rule: "!isCIDR(self) || cidr(self).ip().family() != 4 || (cidr(self).prefixLength() >= 8 && cidr(self).prefixLength() <= 29)",
            message: "ipv4.cidr must be between /8 and /29",
          },
          unchanged,
        ),
      ),
    dhcp: z.boolean().default(true).meta(doc("Whether instances get their address by DHCP. Default: true.")),
  })
  .meta(doc("IPv4 of the network."));

const ipv6 = z
  .object({
    cidr: z
      .string()
      .max(43)
      .meta(
        doc(
          "Its addresses, such as fd42:10::/64. The first one is the gateway.",
          {
            rule: "isCIDR(self) && cidr(self).ip().family() == 6",
            message: "ipv6.cidr is not an IPv6 network such as fd42:10::/64",
          },
          {
            rule: "!isCIDR(self) || cidr(self).masked() == cidr(self)",
            message: "ipv6.cidr is not a network address",
            messageExpression: "'%s is not a network address; did you mean %s?'.format([self, string(cidr(self).masked())])",
          },
          {
            rule: "!isCIDR(self) || cidr(self).ip().family() != 6 || (cidr(self).prefixLength() >= 48 && cidr(self).prefixLength() <= 64)",
            message: "ipv6.cidr must be between /48 and /64",
          },
          unchanged,
        ),
      ),
    dhcp: z
      .boolean()
      .default(true)
      .meta(
        doc(
          "Whether instances get their address by DHCPv6; router advertisements are sent either way. Without it the network must be a /64. Default: true.",
        ),
      ),
  })
  .meta(
    doc("IPv6 of the network.", {
      // An interface identifier has 64 bits: of another prefix no guest would make an address.
      rule: "!has(self.dhcp) || self.dhcp || !isCIDR(self.cidr) || cidr(self.cidr).ip().family() != 6 || cidr(self.cidr).prefixLength() == 64",
      message:
        "ipv6.dhcp: false needs a /64, from which instances make their addresses themselves; make ipv6.cidr a /64, or leave dhcp on",
      fieldPath: ".cidr",
    }),
  );

export const networkSpec = z
  .object({
    ipv4: ipv4.optional(),
    ipv6: ipv6.optional(),
    dns: z
      .object({
        domain: z
          .string()
          .max(253)
          .meta(
            doc("Domain of the instances' names, such as blue.team-a.internal.", {
              rule: "self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*$')",
              message:
                "dns.domain must be a domain such as blue.team-a.internal: labels of small letters, digits and -, with dots between",
            }),
          ),
      })
      .optional()
      .meta(doc("Names on this network. Default domain: <network>.<namespace>.internal.")),
  })
  .meta(
    doc(
      "What the network should be.",
      { rule: "has(self.ipv4) || has(self.ipv6)", message: "a network needs ipv4 or ipv6" },
      {
        rule: "has(self.ipv4) == has(oldSelf.ipv4) && has(self.ipv6) == has(oldSelf.ipv6)",
        message: "the addresses of a network cannot change; make a new network",
      },
    ),
  );

export const networkStatus = z
  .object({
    observedGeneration: z.int().optional().meta(doc("The generation that this status speaks of.")),
    conditions: conditions.optional(),
    instances: z.int().optional().meta(doc("Instances with a NIC on it.")),
    ipv4Gateway: z.string().optional().meta(doc("The router's IPv4 address.")),
    ipv6Gateway: z.string().optional().meta(doc("The router's IPv6 address.")),
    domain: z.string().optional().meta(doc("Domain of the instances' names.")),
    mtu: z.int().optional().meta(doc("Largest packet, in bytes, that an instance can send.")),
  })
  .meta(doc("What is known of it. Written by Drover."));

export type NetworkSpec = z.infer<typeof networkSpec>;
export type NetworkStatus = z.infer<typeof networkStatus>;
export type Network = Resource<"Network", NetworkSpec, NetworkStatus>;

export const networkKind: KindDefinition = {
  kind: "Network",
  plural: "networks",
  singular: "network",
  shortNames: ["dnet"],
  scope: "Namespaced",
  description: "A virtual network of instances: a switch and a router of its own, across all nodes.",
  spec: networkSpec,
  status: networkStatus,
  columns: [
    { name: "IPv4", type: "string", jsonPath: ".spec.ipv4.cidr" },
    { name: "IPv6", type: "string", jsonPath: ".spec.ipv6.cidr" },
    { name: "Instances", type: "integer", jsonPath: ".status.instances" },
    { name: "Ready", type: "string", jsonPath: ".status.conditions[?(@.type=='Ready')].status" },
    { name: "Age", type: "date", jsonPath: ".metadata.creationTimestamp" },
    { name: "Domain", type: "string", jsonPath: ".status.domain", priority: 1 },
    { name: "MTU", type: "integer", jsonPath: ".status.mtu", priority: 1 },
  ],
  rules: nameRules("a network's", 63),
};
