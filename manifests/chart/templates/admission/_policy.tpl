{{/* A ValidatingAdmissionPolicyBinding that denies. */}}
{{- define "drover.binding" -}}
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata:
  name: {{ .name }}
  labels: {{- include "drover.labels" (dict "root" .root "component" "admission") | nindent 4 }}
spec:
  policyName: {{ .name }}
  validationActions: [Deny]
{{- end }}

{{/* Head of a policy on what agents (users) write, and how it knows an agent's node: by the claim of its token. */}}
{{- define "drover.agentPolicy" -}}
failurePolicy: Fail
matchConditions:
  - name: is-an-agent
    expression: request.userInfo.username in ['{{ join "', '" .users }}']
variables:
  - name: node
    expression: >-
      has(request.userInfo.extra) && 'authentication.kubernetes.io/node-name' in request.userInfo.extra
      && request.userInfo.extra['authentication.kubernetes.io/node-name'].size() == 1
      ? request.userInfo.extra['authentication.kubernetes.io/node-name'][0] : ''
{{- end }}
