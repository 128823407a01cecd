{{/* The alerts, as a rules file of Prometheus. Without the controller its group is
left out: an alert on its absence would never end. */}}
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

{{/* Annotations by which Prometheus finds what is scraped, at this "port" and "path". */}}
{{- define "isthmus.scrapeAnnotations" -}}
prometheus.io/scrape: "true"
prometheus.io/port: {{ int .port | quote }}
prometheus.io/path: {{ .path | default "/metrics" | quote }}
{{- end }}
