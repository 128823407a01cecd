{{/* Common fields of the webhooks for pods. */}}
{{- define "isthmus.admission" -}}
{{- with .root -}}
admissionReviewVersions: [v1]
sideEffects: None
failurePolicy: {{ .Values.webhook.failurePolicy }}
reinvocationPolicy: IfNeeded
matchPolicy: Equivalent
timeoutSeconds: {{ .Values.webhook.timeoutSeconds }}
{{ include "isthmus.clientConfig" $ }}
rules:
  - operations: [CREATE]
    apiGroups: [""]
    apiVersions: [v1]
    resources: [pods]
    scope: Namespaced
{{- end -}}
{{- end }}

{{/* Common fields of the webhooks for workloads and namespaces. They report early what
the review of the pods would find later, so nothing depends on them: if they cannot be
reached, the object is accepted, whatever the failurePolicy for pods. */}}
{{- define "isthmus.validation" -}}
admissionReviewVersions: [v1]
sideEffects: None
failurePolicy: Ignore
matchPolicy: Equivalent
timeoutSeconds: 3
{{ include "isthmus.clientConfig" . }}
{{- end }}

{{/* The Service that the API server calls, for "path". The caBundle is here only if the
user gives it. Otherwise the manager of the certificate writes the caBundle, and an
upgrade does not change fields that no manifest sets. */}}
{{- define "isthmus.clientConfig" -}}
{{- with .root -}}
clientConfig:
  service:
    name: {{ include "isthmus.webhook" . }}
    namespace: {{ .Release.Namespace | quote }}
    port: 443
    path: {{ $.path }}
  {{- if eq .Values.certificate.mode "existing" }}
  caBundle: {{ .Values.certificate.existing.caBundle | b64enc }}
  {{- end }}
{{- end -}}
{{- end }}

{{/* Annotations of the configurations: the user's, and cert-manager's. */}}
{{- define "isthmus.webhookAnnotations" -}}
{{- $own := dict -}}
{{- if eq .Values.certificate.mode "cert-manager" -}}
{{- $_ := set $own "cert-manager.io/inject-ca-from" (printf "%s/%s" .Release.Namespace (include "isthmus.webhook" .)) -}}
{{- end -}}
{{- merge $own .Values.webhook.annotations | toYaml -}}
{{- end }}

{{/* Excludes namespaces whose pods are never sent to the webhook. */}}
{{- define "isthmus.notExcluded" -}}
matchExpressions:
  - key: kubernetes.io/metadata.name
    operator: NotIn
    values:
      {{- include "isthmus.excludedNamespaces" . | fromJsonArray | toYaml | nindent 6 }}
{{- end }}

{{/* Static pods belong to the kubelet; their mirror pods cannot be changed. */}}
{{- define "isthmus.notMirrored" -}}
- name: not-a-mirror-pod
  expression: >-
    !(has(object.metadata) && has(object.metadata.annotations) &&
    'kubernetes.io/config.mirror' in object.metadata.annotations)
{{- end }}

{{/* Workloads with a pod template, each in its stable version. The subresources scale
and status do not change a template. */}}
{{- define "isthmus.workloads" -}}
- operations: [CREATE, UPDATE]
  apiGroups: [apps]
  apiVersions: [v1]
  resources: [deployments, daemonsets, statefulsets, replicasets]
  scope: Namespaced
- operations: [CREATE, UPDATE]
  apiGroups: [batch]
  apiVersions: [v1]
  resources: [jobs, cronjobs]
  scope: Namespaced
- operations: [CREATE, UPDATE]
  apiGroups: [""]
  apiVersions: [v1]
  resources: [replicationcontrollers]
  scope: Namespaced
{{- end }}

{{/* The pod template of an object; a CronJob's is nested deeper. */}}
{{- define "isthmus.template" -}}
(has({{ . }}.spec.jobTemplate) ? {{ . }}.spec.jobTemplate.spec.template : {{ . }}.spec.template)
{{- end }}

{{/* A ReplicaSet or Job with a controller repeats its owner's template, and the owner
was reviewed already. An update that does not change the template does not change the pods. */}}
{{- define "isthmus.newTemplate" -}}
- name: has-a-template
  expression: has(object.spec) && (has(object.spec.template) || has(object.spec.jobTemplate))
- name: not-controlled
  expression: >-
    !(has(object.metadata.ownerReferences) &&
    object.metadata.ownerReferences.exists(o, has(o.controller) && o.controller))
- name: template-is-new
  expression: >-
    request.operation != 'UPDATE' ||
    {{ include "isthmus.template" "object" }} !=
    {{ include "isthmus.template" "oldObject" }}
{{- end }}
