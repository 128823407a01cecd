{{/*
Names. The chart's cluster-scoped objects have fixed names, so that there is one
Isthmus in a cluster ("isthmus.validateAlone"), and so that the webhook
configuration sorts right before Istio's whatever the release is called. One
release per cluster needs no release name in the names of the others either.
*/}}

{{/* The two webhook configurations, one of each kind. It must start with "isthmus-". */}}
{{- define "isthmus.webhookConfiguration" -}}
isthmus-injector
{{- end }}

{{/* Deployment, Service, ServiceAccount and what belongs to them. */}}
{{- define "isthmus.webhook" -}}
isthmus-webhook
{{- end }}

{{/* The same of the controller; its Lease has this name in the program. */}}
{{- define "isthmus.controller" -}}
isthmus-controller
{{- end }}

{{/* The ClusterRole of the in-pod publishers, and the RoleBindings to it that the
controller makes; the program knows the name. */}}
{{- define "isthmus.publisher" -}}
isthmus-publisher
{{- end }}

{{/* The policy that fences the controller's tokens, and its binding. */}}
{{- define "isthmus.tokenPolicy" -}}
isthmus-controller-tokens
{{- end }}

{{/* What the controller's restarts need: the ConfigMap that says which one is under
way, whose name the program knows, and the policy that fences them. */}}
{{- define "isthmus.restartPolicy" -}}
isthmus-controller-restarts
{{- end }}

{{/* CEL: the first map is the second, but for the keys of the third, a list. */}}
{{- define "isthmus.sameBut" -}}
{{- $new := index . 0 }}{{ $old := index . 1 }}{{ $but := index . 2 -}}
{{ $new }}.all(k, k in {{ $but }} || (k in {{ $old }} && {{ $new }}[k] == {{ $old }}[k])) &&
{{ $old }}.all(k, k in {{ $but }} || k in {{ $new }})
{{- end }}

{{/* The Secret that holds the self-managed CA. The chart creates it empty, the
controller fills it, the webhook's replicas read it. */}}
{{- define "isthmus.caSecret" -}}
isthmus-webhook-ca
{{- end }}

{{/* The Secret that holds a serving certificate from elsewhere. */}}
{{- define "isthmus.tlsSecret" -}}
{{- if eq .Values.certificate.mode "existing" -}}
{{ .Values.certificate.existing.secretName }}
{{- else -}}
isthmus-webhook-tls
{{- end -}}
{{- end }}

{{/* The name that the API server calls and verifies. */}}
{{- define "isthmus.serverName" -}}
{{ include "isthmus.webhook" . }}.{{ .Release.Namespace }}.svc
{{- end }}

{{/* The image, by digest where there is one. */}}
{{- define "isthmus.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}
{{ .repository }}@{{ .digest }}
{{- else -}}
{{ .repository }}:{{ .tag | default $.Chart.AppVersion }}
{{- end -}}
{{- end -}}
{{- end }}

{{/* Labels that never change in the life of a release. */}}
{{- define "isthmus.selectorLabels" -}}
app.kubernetes.io/name: isthmus
app.kubernetes.io/instance: {{ .Release.Name | quote }}
app.kubernetes.io/component: webhook
{{- end }}

{{/* Labels of every object. */}}
{{- define "isthmus.labels" -}}
{{ include "isthmus.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | replace "+" "_" | trunc 63 | quote }}
app.kubernetes.io/part-of: isthmus
app.kubernetes.io/managed-by: {{ .Release.Service | quote }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | quote }}
{{- end }}

{{/* The same for the component "component" of "root". */}}
{{- define "isthmus.selectorLabelsOf" -}}
{{ include "isthmus.selectorLabels" .root | replace "component: webhook" (printf "component: %s" .component) }}
{{- end }}

{{- define "isthmus.labelsOf" -}}
{{ include "isthmus.labels" .root | replace "component: webhook" (printf "component: %s" .component) }}
{{- end }}

{{/* What has pods, as a JSON list. */}}
{{- define "isthmus.components" -}}
{{- ternary (list "webhook" "controller") (list "webhook") .Values.controller.enabled | toJson -}}
{{- end }}

{{/* Who reads the mesh's settings, as subjects of a binding. */}}
{{- define "isthmus.meshReaders" -}}
{{- range $i, $component := include "isthmus.components" . | fromJsonArray }}
{{- if $i }}{{ "\n" }}{{ end -}}
- kind: ServiceAccount
  name: isthmus-{{ $component }}
  namespace: {{ $.Release.Namespace | quote }}
{{- end }}
{{- end }}

{{/* Namespaces whose pods are never sent, as a JSON list: sorted, each once. */}}
{{- define "isthmus.excludedNamespaces" -}}
{{- concat (list "kube-system" .Release.Namespace) .Values.webhook.excludedNamespaces | uniq | sortAlpha | toJson -}}
{{- end }}

{{/* Whether controller and replicas manage CA, leaf and caBundle themselves: "true"
or nothing. */}}
{{- define "isthmus.selfManaged" -}}
{{- if eq .Values.certificate.mode "self-managed" }}true{{ end -}}
{{- end }}

{{/* The namespace of the test's pod; nothing when there is none to create it in. */}}
{{- define "isthmus.testNamespace" -}}
{{- $excluded := include "isthmus.excludedNamespaces" . | fromJsonArray -}}
{{- .Values.test.namespace | default (ternary "" "default" (has "default" $excluded)) -}}
{{- end }}

{{/* The audience of the tokens that Istio's CA takes. */}}
{{- define "isthmus.tokenAudience" -}}
{{ .Values.mesh.tokenAudience | default "istio-ca" }}
{{- end }}

{{/* The ConfigMap that holds the mesh's roots. */}}
{{- define "isthmus.rootConfigMap" -}}
{{ .Values.mesh.rootConfigMap | default "istio-ca-root-cert" }}
{{- end }}

{{/* The Secrets that the controller keeps, as a JSON list: the allowed names, and
beside each the one that holds the mesh's roots alone, for a TLSContext. */}}
{{- define "isthmus.keptSecrets" -}}
{{- $names := list -}}
{{- range .Values.secretNames -}}
{{- $names = append (append $names .) (printf "%s-roots" .) -}}
{{- end -}}
{{- $names | uniq | toJson -}}
{{- end }}

{{/* The Secrets that cert-manager issues into, as a JSON list. */}}
{{- define "isthmus.issuedSecrets" -}}
{{- $names := list -}}
{{- range .Values.secretNames -}}
{{- $names = append $names (printf "%s-issued" .) -}}
{{- end -}}
{{- $names | uniq | toJson -}}
{{- end }}
