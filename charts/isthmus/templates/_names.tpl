{{/*
Names. The chart's cluster-scoped objects have fixed names, so that a cluster holds
one Isthmus ("isthmus.validateAlone"), and so that the webhook configuration sorts
right before Istio's, whatever the name of the release. With one release per cluster
the other objects need no release name in their names either.
*/}}

{{/* The two webhook configurations, one of each kind. It must start with "isthmus-". */}}
{{- define "isthmus.webhookConfiguration" -}}
isthmus-injector
{{- end }}

{{/* The webhook's Deployment, Service, ServiceAccount and related objects. */}}
{{- define "isthmus.webhook" -}}
isthmus-webhook
{{- end }}

{{/* The controller's objects; the program uses this name for its Lease. */}}
{{- define "isthmus.controller" -}}
isthmus-controller
{{- end }}

{{/* The Roles of the controller in the namespaces of controller.namespaces. */}}
{{- define "isthmus.controllerEdges" -}}
isthmus-controller-edges
{{- end }}

{{/* The ClusterRole of the in-pod publishers, and the RoleBindings to it that the
controller makes; the program uses this name. */}}
{{- define "isthmus.publisher" -}}
isthmus-publisher
{{- end }}

{{/* The policy that restricts the controller's tokens, and its binding. */}}
{{- define "isthmus.tokenPolicy" -}}
isthmus-controller-tokens
{{- end }}

{{/* Objects for the controller's restarts: the ConfigMap that records the current
restart (the program uses this name), and the policy that restricts restarts. */}}
{{- define "isthmus.restartPolicy" -}}
isthmus-controller-restarts
{{- end }}

{{/* The policy that restricts which Secrets the controller and the publishers write. */}}
{{- define "isthmus.secretPolicy" -}}
isthmus-secrets
{{- end }}

{{/* The policy that restricts the controller's RoleBindings, TLSContexts and Certificates. */}}
{{- define "isthmus.objectPolicy" -}}
isthmus-controller-objects
{{- end }}

{{/* The policy that restricts the controller's changes of webhook configurations. */}}
{{- define "isthmus.webhookPolicy" -}}
isthmus-controller-webhooks
{{- end }}

{{/* The Secret that holds the self-managed CA. The chart creates the Secret empty, the
controller fills it, the webhook's replicas read it. */}}
{{- define "isthmus.caSecret" -}}
isthmus-webhook-ca
{{- end }}

{{/* The Secret that holds a serving certificate that is not self-managed. */}}
{{- define "isthmus.tlsSecret" -}}
{{- if eq .Values.certificate.mode "existing" -}}
{{ .Values.certificate.existing.secretName }}
{{- else -}}
isthmus-webhook-tls
{{- end -}}
{{- end }}

{{/* The server name that the API server calls and verifies. */}}
{{- define "isthmus.serverName" -}}
{{ include "isthmus.webhook" . }}.{{ .Release.Namespace }}.svc
{{- end }}

{{/* The image, by digest if there is one. */}}
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

{{/* The same labels, for the component "component" of "root". */}}
{{- define "isthmus.selectorLabelsOf" -}}
{{ include "isthmus.selectorLabels" .root | replace "component: webhook" (printf "component: %s" .component) }}
{{- end }}

{{- define "isthmus.labelsOf" -}}
{{ include "isthmus.labels" .root | replace "component: webhook" (printf "component: %s" .component) }}
{{- end }}

{{/* The components that have pods, as a JSON list. */}}
{{- define "isthmus.components" -}}
{{- ternary (list "webhook" "controller") (list "webhook") .Values.controller.enabled | toJson -}}
{{- end }}

{{/* The accounts that read the mesh's settings, as subjects of a binding. */}}
{{- define "isthmus.meshReaders" -}}
{{- range $i, $component := include "isthmus.components" . | fromJsonArray }}
{{- if $i }}{{ "\n" }}{{ end -}}
- kind: ServiceAccount
  name: isthmus-{{ $component }}
  namespace: {{ $.Release.Namespace | quote }}
{{- end }}
{{- end }}

{{/* Namespaces whose pods are never sent to the webhook, as a sorted JSON list without duplicates. */}}
{{- define "isthmus.excludedNamespaces" -}}
{{- concat (list "kube-system" .Release.Namespace) .Values.webhook.excludedNamespaces | uniq | sortAlpha | toJson -}}
{{- end }}

{{/* "true" if controller and replicas manage CA, leaf and caBundle themselves, else
empty. */}}
{{- define "isthmus.selfManaged" -}}
{{- if eq .Values.certificate.mode "self-managed" }}true{{ end -}}
{{- end }}

{{/* The namespace of the test's pod; empty if no namespace is available. */}}
{{- define "isthmus.testNamespace" -}}
{{- $excluded := include "isthmus.excludedNamespaces" . | fromJsonArray -}}
{{- .Values.test.namespace | default (ternary "" "default" (has "default" $excluded)) -}}
{{- end }}

{{/* The audience of the tokens that Istio's CA accepts. */}}
{{- define "isthmus.tokenAudience" -}}
{{ .Values.mesh.tokenAudience | default "istio-ca" }}
{{- end }}

{{/* The ConfigMap that holds the mesh's roots. */}}
{{- define "isthmus.rootConfigMap" -}}
{{ .Values.mesh.rootConfigMap | default "istio-ca-root-cert" }}
{{- end }}

{{/* The Secrets that the controller keeps, as a JSON list: the allowed names, and for
each a Secret that holds only the mesh's roots, for a TLSContext. */}}
{{- define "isthmus.keptSecrets" -}}
{{- $names := list -}}
{{- range .Values.secretNames -}}
{{- $names = append (append $names .) (printf "%s-roots" .) -}}
{{- end -}}
{{- $names | uniq | toJson -}}
{{- end }}

{{/* The TLSContexts that the controller keeps, as a JSON list: the allowed names, and
for each its companion for TCPMappings. */}}
{{- define "isthmus.keptTLSContexts" -}}
{{- $names := list -}}
{{- range .Values.tlsContextNames -}}
{{- $names = append (append $names .) (printf "%s-tcp" .) -}}
{{- end -}}
{{- $names | uniq | toJson -}}
{{- end }}

{{/* The Secrets of the mesh's roots among them, as a JSON list. */}}
{{- define "isthmus.rootsSecrets" -}}
{{- $names := list -}}
{{- range .Values.secretNames -}}
{{- $names = append $names (printf "%s-roots" .) -}}
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
