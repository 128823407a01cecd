{{/*
Checks that values.schema.json cannot express, or cannot express with a helpful
message. The Deployment includes them, so that nothing is rendered from values that
contradict each other.
*/}}
{{- define "isthmus.validate" -}}
{{- include "isthmus.validateAlone" . -}}
{{- with .Values -}}

{{- if and .hostNetwork (eq (int .port) 10250) -}}
{{- fail "port 10250 is the kubelet's on the host's network: with hostNetwork, set port to a free port that the API server can reach, such as 9443" -}}
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
{{- fail (printf "certificate.existing is used in certificate.mode existing only, and the mode is %s: set the mode or leave it empty" .certificate.mode) -}}
{{- end -}}

{{- if and .certificate.certManager.issuerRef (ne .certificate.mode "cert-manager") -}}
{{- fail (printf "certificate.certManager.issuerRef is used in certificate.mode cert-manager only, and the mode is %s: set the mode or leave it empty" .certificate.mode) -}}
{{- end -}}

{{- if not (has .defaults.secretName .secretNames) -}}
{{- fail (printf "defaults.secretName %q is not one of secretNames (%s): add it there or choose one of them" .defaults.secretName (join ", " .secretNames)) -}}
{{- end -}}

{{- range .tlsContextNames -}}
{{- if has . (list "true" "false") -}}
{{- fail (printf "tlsContextNames: %q is a value of isthmus.dev/tls-context with another meaning: choose another name" .) -}}
{{- end -}}
{{- if has (printf "%s-tcp" .) $.Values.tlsContextNames -}}
{{- fail (printf "tlsContextNames: %q is also the name of the companion of %q for TCPMappings: choose another name" (printf "%s-tcp" .) .) -}}
{{- end -}}
{{- end -}}
{{- range $key, $_ := .secretLabels -}}
{{- if or (eq $key "app.kubernetes.io/managed-by") (hasPrefix "isthmus.dev/" $key) -}}
{{- fail (printf "secretLabels: %q is a label that Isthmus itself sets: choose another" $key) -}}
{{- end -}}
{{- end -}}

{{- if .controller.enabled -}}
{{- range .secretNames -}}
{{- if or (hasSuffix "-roots" .) (hasSuffix "-issued" .) -}}
{{- fail (printf "secretNames: %q has a suffix that the controller uses for its own Secrets (-roots, -issued): choose another name" .) -}}
{{- end -}}
{{- if eq . (include "isthmus.caSecret" $) -}}
{{- fail (printf "secretNames: %q is the Secret of the webhook's own CA: choose another name" .) -}}
{{- end -}}
{{- end -}}
{{- range .controller.namespaces -}}
{{- if has . (include "isthmus.excludedNamespaces" $ | fromJsonArray) -}}
{{- fail (printf "controller.namespaces: %q is excluded from injection: remove it here, or from webhook.excludedNamespaces" .) -}}
{{- end -}}
{{- end -}}
{{- range .controller.mirrorSecretNames -}}
{{- if has . $.Values.secretNames -}}
{{- fail (printf "controller.mirrorSecretNames: %q is also one of secretNames: a Secret cannot be a mirror of itself" .) -}}
{{- end -}}
{{- end -}}
{{- if and (eq .defaults.source "cert-manager") (not .controller.certManager.issuerRef) -}}
{{- fail "defaults.source cert-manager needs controller.certManager.issuerRef, the issuer that the controller asks for Certificates" -}}
{{- end -}}
{{- if and (eq .defaults.source "mirror") (not .controller.mirrorSecretNames) -}}
{{- fail "defaults.source mirror needs controller.mirrorSecretNames, the Secrets that the controller may read, such as istio.default" -}}
{{- end -}}
{{- else -}}
{{- if eq .certificate.mode "self-managed" -}}
{{- fail "certificate.mode self-managed needs the controller, which keeps the CA and the caBundle: enable controller.enabled, or set the mode to cert-manager or existing" -}}
{{- end -}}
{{- range $value, $needs := dict "defaults.mode secret" (eq .defaults.mode "secret") "defaults.tlsContext" .defaults.tlsContext "controller.certManager.issuerRef" .controller.certManager.issuerRef "controller.mirrorSecretNames" .controller.mirrorSecretNames "controller.namespaces" .controller.namespaces "controller.restartStale" .controller.restartStale.enabled (printf "defaults.source %s" .defaults.source) (ne .defaults.source "istio-ca") -}}
{{- if $needs -}}
{{- fail (printf "%s needs the controller, and controller.enabled is false: enable it or remove the value" $value) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- range $name, $_ := .profiles -}}
{{- if not (regexMatch "^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$" $name) -}}
{{- fail (printf "profiles: %q is not a valid profile name: want lower case letters, digits and dashes, at most 63 characters" $name) -}}
{{- end -}}
{{- if has $name (list "aes" "ambassador" "emissary" "generic") -}}
{{- fail (printf "profiles.%s has the name of a built-in profile: choose another name" $name) -}}
{{- end -}}
{{- end -}}

{{- if .networkPolicy.metricsFrom -}}
{{- if not .metrics.enabled -}}
{{- fail "networkPolicy.metricsFrom limits who may read metrics, and metrics.enabled is false: enable metrics or leave it empty" -}}
{{- end -}}
{{- end -}}

{{- if and .metrics.serviceMonitor.enabled (not .metrics.enabled) -}}
{{- fail "metrics.serviceMonitor.enabled needs metrics.enabled" -}}
{{- end -}}

{{- if and .metrics.scrapeAnnotations (not .metrics.enabled) -}}
{{- fail "metrics.scrapeAnnotations needs metrics.enabled" -}}
{{- end -}}

{{- with .integrations -}}
{{- if and .tracing.enabled (not .tracing.namespaces) -}}
{{- fail "integrations.tracing.enabled needs integrations.tracing.namespaces, the namespaces of the edges" -}}
{{- end -}}
{{- if and (or .edgeMetrics.podMonitor.enabled .edgeMetrics.scrapeAnnotations) (not .edgeMetrics.namespaces) -}}
{{- fail "integrations.edgeMetrics needs integrations.edgeMetrics.namespaces, the namespaces of the edges" -}}
{{- end -}}
{{- if and .edgeMetrics.scrapeAnnotations (kindIs "string" .edgeMetrics.port) -}}
{{- fail (printf "integrations.edgeMetrics.scrapeAnnotations needs the number of the port, and integrations.edgeMetrics.port is %q" .edgeMetrics.port) -}}
{{- end -}}
{{- if and (or .alerts.prometheusRule.enabled .alerts.configMap.enabled) (not $.Values.metrics.enabled) -}}
{{- fail "integrations.alerts needs Isthmus' metrics, and metrics.enabled is false: enable metrics" -}}
{{- end -}}
{{- end -}}

{{- if and .test.namespace (has .test.namespace (include "isthmus.excludedNamespaces" $ | fromJsonArray)) -}}
{{- fail (printf "test.namespace %q is excluded from injection, so the test's pod would not be sent to the webhook: choose another namespace" .test.namespace) -}}
{{- end -}}

{{- end -}}
{{- end }}

{{/*
Checks that no other Isthmus is in the cluster. Helm would refuse a second release
too, before it creates anything, but with the name of an arbitrary object. The check
needs Helm to talk to a cluster: with "helm template" it finds nothing.
*/}}
{{- define "isthmus.validateAlone" -}}
{{- $name := include "isthmus.webhookConfiguration" . -}}
{{- with lookup "admissionregistration.k8s.io/v1" "MutatingWebhookConfiguration" "" $name -}}
{{- $annotations := .metadata.annotations | default dict -}}
{{- $release := get $annotations "meta.helm.sh/release-name" -}}
{{- $namespace := get $annotations "meta.helm.sh/release-namespace" -}}
{{- $own := printf "meta.helm.sh/release-name=%s meta.helm.sh/release-namespace=%s" $.Release.Name $.Release.Namespace -}}
{{- $adopt := printf "kubectl annotate --overwrite mutatingwebhookconfiguration %s %s, and run Helm with --take-ownership" $name $own -}}
{{- if not $release -}}
{{- fail (printf "a cluster holds one Isthmus, and there is one that no release of Helm owns (MutatingWebhookConfiguration %s): delete it the way it was created, or hand it over to this release: %s" $name $adopt) -}}
{{- else if or (ne $release $.Release.Name) (ne $namespace $.Release.Namespace) -}}
{{- fail (printf "a cluster holds one Isthmus, and release %s in namespace %s is there (MutatingWebhookConfiguration %s): upgrade that one (helm upgrade %s -n %s), or uninstall it first (helm uninstall %s -n %s); if Helm no longer knows that release, hand its objects over to this release: %s" $release $namespace $name $release $namespace $release $namespace $adopt) -}}
{{- end -}}
{{- end -}}
{{- end }}
