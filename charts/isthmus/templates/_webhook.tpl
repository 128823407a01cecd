{{/* What the webhooks of pods have in common. */}}
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

{{/* What the webhooks of workloads and namespaces have in common. They tell a
person early what would be found out later, so that nothing hangs on them: if they
cannot be reached, the object passes, whatever the failurePolicy of pods. */}}
{{- define "isthmus.validation" -}}
admissionReviewVersions: [v1]
sideEffects: None
failurePolicy: Ignore
matchPolicy: Equivalent
timeoutSeconds: 3
{{ include "isthmus.clientConfig" . }}
{{- end }}

{{/* Whom the API server calls, for "path". There is no caBundle here unless it is
the user's: whoever manages the certificate writes it, and an upgrade leaves
alone what no manifest mentions. */}}
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

{{/* Workloads with a pod template, each in the version that is stable. Their
subresources, scale and status, change no template. */}}
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

{{/* The pod template of an object; a CronJob's lies deeper. */}}
{{- define "isthmus.template" -}}
(has({{ . }}.spec.jobTemplate) ? {{ . }}.spec.jobTemplate.spec.template : {{ . }}.spec.template)
{{- end }}

{{/* What a ReplicaSet or Job of a controller says, its owner said, to a person. An
update that leaves the template alone makes no other pods. */}}
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
