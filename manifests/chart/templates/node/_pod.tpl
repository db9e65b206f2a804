{{/* What the pods of a node have in common: they may do everything there, and go where instances may run. */}}
{{- define "drover.nodePod" -}}
{{- include "drover.pullSecrets" . }}
priorityClassName: system-node-critical
hostNetwork: true
# The node's own resolver: agents must work before, and without, cluster DNS.
dnsPolicy: Default
enableServiceLinks: false
{{- with .Values.nodeAgent.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.nodeAgent.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "drover.nodeEnv" -}}
- {name: NODE_NAME, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}
- {name: NODE_IP, valueFrom: {fieldRef: {fieldPath: status.hostIP}}}
- {name: POD_NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
- {name: POD_NAMESPACE, valueFrom: {fieldRef: {fieldPath: metadata.namespace}}}
- {name: LOG_LEVEL, value: {{ .Values.logLevel }}}
- {name: DROVER_OVS_DATAPATH, value: {{ .Values.ovs.datapath }}}
{{- end }}

{{- define "drover.nodeProbes" -}}
startupProbe:
  httpGet: {path: /healthz, port: http}
  periodSeconds: 1
  failureThreshold: 120
livenessProbe:
  httpGet: {path: /healthz, port: http}
  periodSeconds: 15
  timeoutSeconds: 5
  failureThreshold: 4
readinessProbe:
  httpGet: {path: /readyz, port: http}
  periodSeconds: 5
  timeoutSeconds: 5
{{- end }}

{{/* Mounts and volumes by which a pod acts on its node. Same paths inside as outside. */}}
{{- define "drover.nodeMounts" -}}
- {name: drover, mountPath: /var/lib/drover, mountPropagation: Bidirectional}
- {name: run-drover, mountPath: /run/drover}
- {name: run-openvswitch, mountPath: /run/openvswitch}
- {name: cgroup, mountPath: /sys/fs/cgroup, mountPropagation: HostToContainer}
- {name: dev, mountPath: /dev, mountPropagation: HostToContainer}
{{- end }}
{{- define "drover.nodeVolumes" -}}
- {name: drover, hostPath: {path: /var/lib/drover, type: DirectoryOrCreate}}
- {name: run-drover, hostPath: {path: /run/drover, type: DirectoryOrCreate}}
- {name: run-openvswitch, hostPath: {path: /run/openvswitch, type: DirectoryOrCreate}}
- {name: cgroup, hostPath: {path: /sys/fs/cgroup, type: Directory}}
- {name: dev, hostPath: {path: /dev, type: Directory}}
{{- end }}
