/** The API resources of Kubernetes itself that Drover uses. */
import type {
  CertificateSigningRequest,
  ConfigMap,
  CustomResourceDefinition,
  EndpointSlice,
  KubeEvent,
  Lease,
  Namespace,
  Node,
  Pod,
  PodDisruptionBudget,
  ResourceQuota,
  Secret,
  Service,
} from "./builtin.ts";
import type { KubeObject, ResourceType } from "./types.ts";

/** Describes a resource; T is the type of its objects. */
export const resource = <T extends KubeObject>(
  group: string,
  version: string,
  plural: string,
  kind: string,
  namespaced = true,
): ResourceType<T> => ({ group, version, plural, kind, namespaced });

export const resources = {
  pods: resource<Pod>("", "v1", "pods", "Pod"),
  nodes: resource<Node>("", "v1", "nodes", "Node", false),
  namespaces: resource<Namespace>("", "v1", "namespaces", "Namespace", false),
  configMaps: resource<ConfigMap>("", "v1", "configmaps", "ConfigMap"),
  secrets: resource<Secret>("", "v1", "secrets", "Secret"),
  services: resource<Service>("", "v1", "services", "Service"),
  leases: resource<Lease>("coordination.k8s.io", "v1", "leases", "Lease"),
  events: resource<KubeEvent>("events.k8s.io", "v1", "events", "Event"),
  podDisruptionBudgets: resource<PodDisruptionBudget>("policy", "v1", "poddisruptionbudgets", "PodDisruptionBudget"),
  resourceQuotas: resource<ResourceQuota>("", "v1", "resourcequotas", "ResourceQuota"),
  endpointSlices: resource<EndpointSlice>("discovery.k8s.io", "v1", "endpointslices", "EndpointSlice"),
  certificateSigningRequests: resource<CertificateSigningRequest>(
    "certificates.k8s.io",
    "v1",
    "certificatesigningrequests",
    "CertificateSigningRequest",
    false,
  ),
  customResourceDefinitions: resource<CustomResourceDefinition>(
    "apiextensions.k8s.io",
    "v1",
    "customresourcedefinitions",
    "CustomResourceDefinition",
    false,
  ),
} as const;

/** `v1` or `group/v1`, as objects carry it. */
export const apiVersionOf = (type: ResourceType): string => (type.group === "" ? type.version : `${type.group}/${type.version}`);

/** `instances.drover.dev`, as logs and metrics name a resource. */
export const resourceText = (type: ResourceType): string => (type.group === "" ? type.plural : `${type.plural}.${type.group}`);

/**
 * Path of a collection or, with a name, of one object. Names are escaped.
 * @throws when a namespaced object is named without its namespace
 */
export const resourcePath = (type: ResourceType, key: { namespace?: string; name?: string }, subresource?: string): string => {
  const base = type.group === "" ? `/api/${type.version}` : `/apis/${type.group}/${type.version}`;
  if (type.namespaced && key.name !== undefined && !key.namespace) {
    throw new Error(`${type.kind} ${key.name} needs a namespace`);
  }
  const scope = type.namespaced && key.namespace ? `/namespaces/${encodeURIComponent(key.namespace)}` : "";
  const name = key.name === undefined ? "" : `/${encodeURIComponent(key.name)}`;
  return `${base}${scope}/${type.plural}${name}${subresource ? `/${subresource}` : ""}`;
};
