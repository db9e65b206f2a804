{{/* Labels of every object. */}}
{{- define "drover.labels" -}}
app.kubernetes.io/name: drover
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
app.kubernetes.io/part-of: drover
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
{{- end }}

{{/* Labels by which pods are found; they never change, and a new version of the chart alone restarts nothing. */}}
{{- define "drover.selector" -}}
app.kubernetes.io/name: drover
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- define "drover.image" -}}
{{ .root.Values.image.repository }}-{{ .component }}:{{ .root.Values.image.tag | default .root.Chart.AppVersion }}
{{- end }}

{{- define "drover.runtimeImage" -}}
{{ .Values.image.runtime | default (include "drover.image" (dict "root" . "component" "runtime")) }}
{{- end }}

{{- define "drover.holderImage" -}}
{{ .Values.claims.holderImage | default (include "drover.image" (dict "root" . "component" "holder")) }}
{{- end }}

{{- define "drover.pullSecrets" -}}
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* User names of the service accounts, as admission sees them. */}}
{{- define "drover.operatorUser" -}}system:serviceaccount:{{ .Release.Namespace }}:drover-operator{{- end }}
{{- define "drover.agentUser" -}}system:serviceaccount:{{ .Release.Namespace }}:drover-agent{{- end }}
{{- define "drover.ovsUser" -}}system:serviceaccount:{{ .Release.Namespace }}:drover-ovs{{- end }}

{{/* Mounts of the working tree in dev mode. */}}
{{- define "drover.devMounts" -}}
{{- if .Values.dev.enabled }}
{{- range list "crds" "kube" "ovsdb" "operator" "node-agent" "node_modules" "package.json" }}
- {name: dev-{{ . | replace "_" "-" | replace "." "-" }}, mountPath: /opt/drover/{{ . }}, readOnly: true}
{{- end }}
{{- end }}
{{- end }}
{{- define "drover.devVolumes" -}}
{{- if .Values.dev.enabled }}
{{- $path := required "dev.enabled needs dev.path, the working tree on every node" .Values.dev.path }}
{{- range list "crds" "kube" "ovsdb" "operator" "node-agent" "node_modules" "package.json" }}
- name: dev-{{ . | replace "_" "-" | replace "." "-" }}
  hostPath: {path: {{ $path }}/{{ . }}, type: {{ eq . "package.json" | ternary "File" "Directory" }}}
{{- end }}
{{- end }}
{{- end }}

{{/* Where a process finds OVN: the remotes of an existing one, or the Service of the chart's own. */}}
{{- define "drover.ovnEnv" -}}
- {name: DROVER_OVN_NAMESPACE, value: {{ .Release.Namespace }}}
- {name: DROVER_OVN_SERVICE, value: ovn-central}
{{- end }}

{{/* What the operator is told of updates; a window that begins when it ends is no window. */}}
{{- define "drover.runtimeUpdate" -}}
{{- $window := .Values.runtimeUpdate.window -}}
{{- if and $window.start (eq $window.start $window.end) -}}
{{- fail (printf "runtimeUpdate.window begins and ends at %s: leave both empty for the whole day" $window.start) -}}
{{- end -}}
{{ .Values.runtimeUpdate | toJson }}
{{- end }}

{{- define "drover.operatorTlsSecret" -}}
{{ ternary "drover-ovn-operator" .Values.ovn.external.operatorSecret (empty .Values.ovn.external.northbound) }}
{{- end }}

{{/*
The node that holds OVN's databases: the one named; else the one it has been on, as long as that exists; else an untainted
node. Elsewhere it would start with empty databases, and every guest would be silent until they are filled again.
Empty when the cluster cannot be asked (helm template): then the scheduler chooses.
*/}}
{{- define "drover.ovnCentralNode" -}}
{{- $chosen := .Values.ovn.central.nodeName -}}
{{- if not $chosen -}}
  {{- $old := lookup "apps/v1" "StatefulSet" .Release.Namespace "ovn-central" | default dict -}}
  {{- $kept := dig "metadata" "annotations" "drover.dev/ovn-central-node" "" $old -}}
  {{- if and $kept (lookup "v1" "Node" "" $kept) -}}
    {{- $chosen = $kept -}}
  {{- else -}}
    {{- $names := list -}}
    {{- range (lookup "v1" "Node" "" "" | default dict).items -}}
      {{- $names = append $names (printf "%d/%s" (ternary 1 0 (gt (len (dig "spec" "taints" list .)) 0)) .metadata.name) -}}
    {{- end -}}
    {{- if $names -}}{{- $chosen = (first (sortAlpha $names) | splitList "/" | last) -}}{{- end -}}
  {{- end -}}
{{- end -}}
{{ $chosen }}
{{- end }}
