/** kube-apiserver's command line. */
import path from "node:path";
import { etcdUrl } from "./etcd.ts";
import { certificateFiles } from "./pki.ts";
import type { Command, Place } from "./types.ts";

export interface ApiserverOptions {
  /** Log of requests, by this policy file. */
  audit?: { policyFile: string; logFile: string };
  /** An AuthenticationConfiguration. */
  authenticationConfig?: string;
  flags?: string[];
}

export const apiserverUrl = (place: Pick<Place, "address" | "ports">): string =>
  `https://${place.address}:${place.ports.apiserver}`;

export const apiserverCommand = (place: Place, options: ApiserverOptions = {}): Command => {
  const { pki } = place;
  const server = certificateFiles(pki, "apiserver");
  const proxy = certificateFiles(pki, "front-proxy");
  const kubelet = certificateFiles(pki, "kubelet-client");
  return {
    name: "kube-apiserver",
    command: path.join(place.binaries, "kube-apiserver"),
    args: [
      `--etcd-servers=${etcdUrl(place)}`,
      `--etcd-cafile=${pki.ca}`,
      `--etcd-certfile=${server.cert}`,
      `--etcd-keyfile=${server.key}`,
      `--bind-address=${place.address}`,
      `--advertise-address=${place.address}`,
      `--secure-port=${place.ports.apiserver}`,
      `--cert-dir=${path.join(place.directory, "apiserver")}`,
      `--tls-cert-file=${server.cert}`,
      `--tls-private-key-file=${server.key}`,
      `--client-ca-file=${pki.ca}`,
      "--authorization-mode=Node,RBAC",
      "--enable-admission-plugins=NodeRestriction",
      "--allow-privileged=true",
      "--service-account-issuer=https://kubernetes.default.svc",
      `--service-account-key-file=${pki.serviceAccountKey}`,
      `--service-account-signing-key-file=${pki.serviceAccountKey}`,
      `--service-cluster-ip-range=${place.serviceCidr}`,
      // Webhooks and aggregated APIs are dialled at pod IPs: no kube-proxy is needed where the API server runs.
      "--enable-aggregator-routing=true",
      `--requestheader-client-ca-file=${pki.ca}`,
      "--requestheader-allowed-names=front-proxy",
      "--requestheader-username-headers=X-Remote-User",
      "--requestheader-group-headers=X-Remote-Group",
      "--requestheader-extra-headers-prefix=X-Remote-Extra-",
      `--proxy-client-cert-file=${proxy.cert}`,
      `--proxy-client-key-file=${proxy.key}`,
      `--kubelet-certificate-authority=${pki.ca}`,
      `--kubelet-client-certificate=${kubelet.cert}`,
      `--kubelet-client-key=${kubelet.key}`,
      "--kubelet-preferred-address-types=InternalIP",
      "--profiling=false",
      ...(options.audit ? [`--audit-policy-file=${options.audit.policyFile}`, `--audit-log-path=${options.audit.logFile}`] : []),
      ...(options.authenticationConfig ? [`--authentication-config=${options.authenticationConfig}`] : []),
      ...(options.flags ?? []),
    ],
  };
};
