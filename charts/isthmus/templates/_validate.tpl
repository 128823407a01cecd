{{/*
What values.schema.json cannot say, or cannot say in words that help. Included
by the Deployment, so that nothing is rendered from values that contradict
each other.
*/}}
{{- define "isthmus.validate" -}}
{{- with .Values -}}

{{- if and .hostNetwork (eq (int .port) 10250) -}}
{{- fail "port 10250 is the kubelet's on the host's network: with hostNetwork, set port to a free one that the API server may reach, such as 9443" -}}
{{- end -}}

{{- $ports := dict -}}
{{- range $value, $port := dict "port" .port "healthPort" .healthPort "metrics.port" (ternary .metrics.port 0 .metrics.enabled) -}}
{{- $number := toString (int $port) -}}
{{- with get $ports $number -}}
{{- fail (printf "%s and %s are both %s: each needs a port of its own" . $value $number) -}}
{{- end -}}
{{- $_ := set $ports $number $value -}}
{{- end -}}

{{- $existing := .certificate.existing -}}
{{- if eq .certificate.mode "existing" -}}
{{- if not $existing.secretName -}}
{{- fail "certificate.mode existing needs certificate.existing.secretName, a Secret in the release's namespace with tls.crt and tls.key" -}}
{{- end -}}
{{- if not $existing.caBundle -}}
{{- fail "certificate.mode existing needs certificate.existing.caBundle, the CA certificates as PEM: --set-file certificate.existing.caBundle=ca.pem" -}}
{{- end -}}
{{- else if or $existing.secretName $existing.caBundle -}}
{{- fail (printf "certificate.existing is read in certificate.mode existing only, and the mode is %s: set the mode or leave it empty" .certificate.mode) -}}
{{- end -}}

{{- if and .certificate.certManager.issuerRef (ne .certificate.mode "cert-manager") -}}
{{- fail (printf "certificate.certManager.issuerRef is read in certificate.mode cert-manager only, and the mode is %s: set the mode or leave it empty" .certificate.mode) -}}
{{- end -}}

{{- if not (has .defaults.secretName .secretNames) -}}
{{- fail (printf "defaults.secretName %q is none of secretNames (%s): add it there or choose one of them" .defaults.secretName (join ", " .secretNames)) -}}
{{- end -}}

{{- range $name, $_ := .profiles -}}
{{- if not (regexMatch "^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$" $name) -}}
{{- fail (printf "profiles: %q is no name of a profile: want lower case letters, digits and dashes, at most 63" $name) -}}
{{- end -}}
{{- if has $name (list "aes" "ambassador" "emissary" "generic") -}}
{{- fail (printf "profiles.%s has the name of a built-in profile: choose another name" $name) -}}
{{- end -}}
{{- end -}}

{{- if .networkPolicy.metricsFrom -}}
{{- if not .metrics.enabled -}}
{{- fail "networkPolicy.metricsFrom says who may read metrics, and metrics.enabled is false: enable metrics or leave it empty" -}}
{{- end -}}
{{- end -}}

{{- if and .metrics.serviceMonitor.enabled (not .metrics.enabled) -}}
{{- fail "metrics.serviceMonitor.enabled needs metrics.enabled" -}}
{{- end -}}

{{- if and .test.namespace (has .test.namespace (include "isthmus.excludedNamespaces" $ | fromJsonArray)) -}}
{{- fail (printf "test.namespace %q is excluded from injection, so the test's pod would never be sent: choose another namespace" .test.namespace) -}}
{{- end -}}

{{- end -}}
{{- end }}
