{{/*
Parts of the ValidatingAdmissionPolicies that restrict the controller. RBAC grants an
object by its name; these policies restrict what may be written into it.
*/}}

{{/* The binding of the policy "name" of "root". */}}
{{- define "isthmus.policyBinding" -}}
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata:
  name: {{ .name }}
  labels:
    {{- include "isthmus.labelsOf" (dict "root" .root "component" "controller") | nindent 4 }}
spec:
  policyName: {{ .name }}
  validationActions: [Deny]
{{- end }}

{{/* CEL: the controller sent the request. */}}
{{- define "isthmus.byController" -}}
request.userInfo.username ==
'system:serviceaccount:{{ .Release.Namespace }}:{{ include "isthmus.controller" . }}'
{{- end }}

{{/* CEL: two maps are equal, except for the keys in a list. Arguments: the two maps and the list. */}}
{{- define "isthmus.sameBut" -}}
{{- $new := index . 0 }}{{ $old := index . 1 }}{{ $but := index . 2 -}}
{{ $new }}.all(k, k in {{ $but }} || (k in {{ $old }} && {{ $new }}[k] == {{ $old }}[k])) &&
{{ $old }}.all(k, k in {{ $but }} || k in {{ $new }})
{{- end }}

{{/* CEL: a map has no entry that is new or changed, except for the keys in a list.
Arguments: the map, the map before, and the list. Entries that stay come first, because
they may be many and the API server limits the cost of an expression. */}}
{{- define "isthmus.addsOnly" -}}
{{- $new := index . 0 }}{{ $old := index . 1 }}{{ $but := index . 2 -}}
{{ $new }}.all(k, (k in {{ $old }} && {{ $new }}[k] == {{ $old }}[k]) || k in {{ $but }})
{{- end }}

{{/* CEL: the namespace is opted in. */}}
{{- define "isthmus.optedIn" -}}
has(namespaceObject.metadata.labels) &&
'isthmus.dev/injection' in namespaceObject.metadata.labels &&
namespaceObject.metadata.labels['isthmus.dev/injection'] == 'enabled' &&
!(request.namespace in {{ include "isthmus.excludedNamespaces" . }})
{{- end }}

{{/* Variables: the object before and after the request. What does not exist is empty.
dyn() removes the types, so that the expressions can iterate over fields. */}}
{{- define "isthmus.ownedVariables" -}}
- name: new
  expression: "request.operation == 'DELETE' ? dyn({}) : dyn(object)"
- name: old
  expression: "request.operation == 'CREATE' ? dyn({'metadata': {}}) : dyn(oldObject)"
- name: newLabels
  expression: "has(variables.new.metadata) && has(variables.new.metadata.labels) ? variables.new.metadata.labels : dyn({})"
- name: oldLabels
  expression: "has(variables.old.metadata.labels) ? variables.old.metadata.labels : dyn({})"
- name: newAnnotations
  expression: "has(variables.new.metadata) && has(variables.new.metadata.annotations) ? variables.new.metadata.annotations : dyn({})"
- name: oldAnnotations
  expression: "has(variables.old.metadata.annotations) ? variables.old.metadata.annotations : dyn({})"
- name: ownedLabels
  expression: >-
    {{ include "isthmus.ownedLabels" . }}
- name: isManaged
  expression: "'app.kubernetes.io/managed-by' in variables.oldLabels && variables.oldLabels['app.kubernetes.io/managed-by'] == 'isthmus'"
- name: what
  expression: "request.resource.resource + ' ' + request.namespace + '/' + request.name"
{{- end }}

{{/* The labels of everything that the controller writes, as a CEL map. */}}
{{- define "isthmus.ownedLabels" -}}
{{- merge (dict "app.kubernetes.io/managed-by" "isthmus") (.Values.secretLabels | default dict) | toJson -}}
{{- end }}

{{/* CEL: labels that are new or changed are ours, and owners and finalizers stay as they
are. */}}
{{- define "isthmus.ownedMetadata" -}}
'app.kubernetes.io/managed-by' in variables.newLabels &&
variables.newLabels['app.kubernetes.io/managed-by'] == 'isthmus' &&
variables.newLabels.all(k, (k in variables.oldLabels && variables.newLabels[k] == variables.oldLabels[k]) ||
(k in variables.ownedLabels && variables.newLabels[k] == variables.ownedLabels[k])) &&
['ownerReferences', 'finalizers'].all(k, !(k in variables.new.metadata) ||
(k in variables.old.metadata && variables.new.metadata[k] == variables.old.metadata[k]))
{{- end }}
