{{/* What the controller may do in the namespaces of edges: in all, or in those of
controller.namespaces. */}}
{{- define "isthmus.controllerRules" -}}
# Edge pods: their service accounts, and the status that the webhook wrote.
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list, watch]
# Events about a pod, its owner and a Secret.
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create]
# Tokens of the edge's own service account for the mesh's CA. The policy
# {{ include "isthmus.tokenPolicy" . }} restricts which tokens.
- apiGroups: [""]
  resources: [serviceaccounts/token]
  verbs: [create]
# The edge's Secret, and the Secret with the mesh's roots. The controller watches their
# metadata, so that one that was deleted or changed is repaired at once: a list or watch
# needs the field selector metadata.name. A server-side apply of a Secret that does not
# exist needs "create" by name; a POST cannot use that right.
- apiGroups: [""]
  resources: [secrets]
  resourceNames: {{ include "isthmus.keptSecrets" . }}
  verbs: [get, list, watch, patch, create, delete]
{{- with .Values.controller.mirrorSecretNames }}
# Source mirror: the Secrets that are mirrored.
- apiGroups: [""]
  resources: [secrets]
  resourceNames: {{ toJson . }}
  verbs: [get]
{{- end }}
{{- with .Values.controller.certManager.issuerRef }}
# Source cert-manager: the Certificate, the issued Secret, and the issuer's status.
- apiGroups: [cert-manager.io]
  resources: [certificates]
  resourceNames: {{ toJson $.Values.secretNames }}
  verbs: [get, patch, create, delete]
- apiGroups: [""]
  resources: [secrets]
  resourceNames: {{ include "isthmus.issuedSecrets" $ }}
  verbs: [get, delete]
{{- if and (eq (.group | default "cert-manager.io") "cert-manager.io") (ne .kind "ClusterIssuer") }}
- apiGroups: [cert-manager.io]
  resources: [issuers]
  resourceNames: [{{ .name | quote }}]
  verbs: [get]
{{- end }}
{{- end }}
# Emissary's TLSContexts, for namespaces that ask for them.
- apiGroups: [getambassador.io]
  resources: [tlscontexts]
  resourceNames: {{ include "isthmus.keptTLSContexts" . }}
  verbs: [get, patch, create, delete]
# In-pod publishers are bound to this one ClusterRole only.
- apiGroups: [rbac.authorization.k8s.io]
  resources: [rolebindings]
  resourceNames: [{{ include "isthmus.publisher" . }}]
  verbs: [get, patch, create, delete]
- apiGroups: [rbac.authorization.k8s.io]
  resources: [clusterroles]
  resourceNames: [{{ include "isthmus.publisher" . }}]
  verbs: [bind]
{{- if .Values.controller.restartStale.enabled }}
# Restarts of stale workloads that ask for it. The policy
# {{ include "isthmus.restartPolicy" . }} restricts which workloads and which fields.
- apiGroups: [apps]
  resources: [deployments, statefulsets, daemonsets]
  verbs: [get, patch]
# To find the Deployment of a pod.
- apiGroups: [apps]
  resources: [replicasets]
  verbs: [get]
{{- end }}
{{- end }}
