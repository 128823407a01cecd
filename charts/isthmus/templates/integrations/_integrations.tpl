{{/* The alerts, as a rules file of Prometheus. Without the controller its group is
left out, because the alert about a missing controller would never end. */}}
{{- define "isthmus.alerts" -}}
{{- $rules := .Files.Get "files/alerts.yaml" | fromYaml -}}
{{- $groups := list -}}
{{- range $rules.groups -}}
{{- if or $.Values.controller.enabled (ne .name "isthmus-controller") -}}
{{- $groups = append $groups . -}}
{{- end -}}
{{- end -}}
{{- dict "groups" $groups | toYaml -}}
{{- end }}

{{/* Annotations by which Prometheus finds the target, at this "port" and "path". */}}
{{- define "isthmus.scrapeAnnotations" -}}
prometheus.io/scrape: "true"
prometheus.io/port: {{ int .port | quote }}
prometheus.io/path: {{ .path | default "/metrics" | quote }}
{{- end }}
