{{/* Scheduling of the pods of "component". */}}
{{- define "isthmus.placement" -}}
{{- $component := . -}}
{{- with .root.Values.nodeSelector -}}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{ end -}}
{{- with .root.Values.tolerations -}}
tolerations:
  {{- toYaml . | nindent 2 }}
{{ end -}}
{{- with .affinity -}}
affinity:
  {{- toYaml . | nindent 2 }}
{{ end -}}
topologySpreadConstraints:
  {{- range list "kubernetes.io/hostname" "topology.kubernetes.io/zone" }}
  - topologyKey: {{ . }}
    maxSkew: 1
    whenUnsatisfiable: {{ $component.root.Values.topologySpread.whenUnsatisfiable }}
    labelSelector:
      matchLabels:
        {{- include "isthmus.selectorLabelsOf" $component | nindent 8 }}
    # Replicas of the old version do not count while a new version rolls out.
    matchLabelKeys: [pod-template-hash]
  {{- end }}
{{- end }}

{{/* Labels of the pods of "component": the chart's, the user's, and labels that keep
service meshes from capturing the API server's calls and those of Isthmus. */}}
{{- define "isthmus.podLabels" -}}
{{- $own := include "isthmus.labelsOf" . | fromYaml -}}
{{- $outside := dict "sidecar.istio.io/inject" "false" "istio.io/dataplane-mode" "none" -}}
{{- merge $own .root.Values.podLabels $outside | toYaml -}}
{{- end }}

{{/* Annotations of every pod. The checksum rolls the pods when the settings change. */}}
{{- define "isthmus.podAnnotations" -}}
{{- $settings := include (print $.Template.BasePath "/settings.yaml") . | sha256sum -}}
{{- merge (dict "checksum/settings" $settings) .Values.podAnnotations | toYaml -}}
{{- end }}

{{/* Environment of a container with these "resources". */}}
{{- define "isthmus.environment" -}}
- name: POD_NAMESPACE
  valueFrom:
    fieldRef:
      fieldPath: metadata.namespace
{{- if dig "limits" "memory" "" .resources }}
- name: GOMEMLIMIT
  valueFrom:
    resourceFieldRef:
      resource: limits.memory
{{- end }}
{{- end }}

{{/* Security contexts of every pod and every container. */}}
{{- define "isthmus.podSecurity" -}}
# No uid is set: the image's own uid is 65532, and OpenShift assigns one of its range.
runAsNonRoot: true
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "isthmus.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{/* Webhook and controller serve /healthz on their port "health". */}}
{{- define "isthmus.liveness" -}}
httpGet:
  path: /healthz
  port: health
initialDelaySeconds: 10
periodSeconds: 10
timeoutSeconds: 5
failureThreshold: 3
{{- end }}

{{/* Flags of both webhook and controller. */}}
{{- define "isthmus.commonArguments" -}}
- --health-probe-bind-address=:{{ .Values.healthPort }}
- --metrics-bind-address={{ if .Values.metrics.enabled }}:{{ .Values.metrics.port }}{{ else }}0{{ end }}
- --settings=/etc/isthmus/settings.yaml
{{- range $name, $_ := .Values.profiles }}
- --profiles=/etc/isthmus/profile-{{ $name }}.yaml
{{- end }}
- --webhook-configuration={{ include "isthmus.webhookConfiguration" . }}
- --namespace=$(POD_NAMESPACE)
{{- if include "isthmus.selfManaged" . }}
- --ca-secret={{ include "isthmus.caSecret" . }}
{{- end }}
- --istio-namespace={{ if .Values.istio.discovery }}{{ .Values.istio.namespace }}{{ end }}
- --log-level={{ .Values.logLevel }}
{{- end }}
