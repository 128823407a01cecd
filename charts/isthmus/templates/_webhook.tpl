{{/* What both webhooks have in common. There is no caBundle here unless it is
the user's: whoever manages the certificate writes it, and an upgrade leaves
alone what no manifest mentions. */}}
{{- define "isthmus.admission" -}}
{{- with .root -}}
admissionReviewVersions: [v1]
sideEffects: None
failurePolicy: {{ .Values.webhook.failurePolicy }}
reinvocationPolicy: IfNeeded
matchPolicy: Equivalent
timeoutSeconds: {{ .Values.webhook.timeoutSeconds }}
clientConfig:
  service:
    name: {{ include "isthmus.webhook" . }}
    namespace: {{ .Release.Namespace | quote }}
    port: 443
    path: {{ $.path }}
  {{- if eq .Values.certificate.mode "existing" }}
  caBundle: {{ .Values.certificate.existing.caBundle | b64enc }}
  {{- end }}
rules:
  - operations: [CREATE]
    apiGroups: [""]
    apiVersions: [v1]
    resources: [pods]
    scope: Namespaced
{{- end -}}
{{- end }}

{{/* Annotations of the configuration: the user's, and cert-manager's. */}}
{{- define "isthmus.webhookAnnotations" -}}
{{- $own := dict -}}
{{- if eq .Values.certificate.mode "cert-manager" -}}
{{- $_ := set $own "cert-manager.io/inject-ca-from" (printf "%s/%s" .Release.Namespace (include "isthmus.webhook" .)) -}}
{{- end -}}
{{- merge $own .Values.webhook.annotations | toYaml -}}
{{- end }}

{{/* Namespaces whose pods are never sent. */}}
{{- define "isthmus.notExcluded" -}}
matchExpressions:
  - key: kubernetes.io/metadata.name
    operator: NotIn
    values:
      {{- include "isthmus.excludedNamespaces" . | fromJsonArray | toYaml | nindent 6 }}
{{- end }}

{{/* Static pods are the kubelet's; their mirrors cannot be changed. */}}
{{- define "isthmus.notMirrored" -}}
- name: not-a-mirror-pod
  expression: >-
    !(has(object.metadata) && has(object.metadata.annotations) &&
    'kubernetes.io/config.mirror' in object.metadata.annotations)
{{- end }}
