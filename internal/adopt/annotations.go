package adopt

import (
	"fmt"
	"slices"

	"github.com/isthmus-mesh/isthmus/webhook/inject"
	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

// adoptAnnotations removes from Istio's annotations what asks for certificate files and
// against the capture of traffic. The rest of the annotations stays.
func (a *adopter) adoptAnnotations() {
	annotations := a.pod.Annotations
	if v, ok := annotations[policy.IstioProxyConfigKey]; ok {
		a.adoptProxyConfig(v)
	}
	for _, key := range []string{policy.IstioUserVolumeMount, policy.IstioUserVolumeKey} {
		if v, ok := annotations[key]; ok {
			a.adoptVolumeAnnotation(key, v)
		}
	}
	if !a.usesInjector {
		return
	}
	for _, key := range []string{policy.IstioInboundPortsKey, policy.IstioOutboundRangesKey} {
		switch v, ok := annotations[key]; {
		case ok && v == "":
			a.dropAnnotations = append(a.dropAnnotations, key)
		case ok:
			a.warn("annotation %s stays %q: Istio captures what it says", key, v)
		default:
			a.warn("annotation %s is not there, so Istio captures traffic of the edge today; mode istio captures none, unless you set %s: \"*\"", key, key)
		}
	}
	if inject.IsTrue(annotations[policy.IstioInjectKey]) {
		a.dropAnnotations = append(a.dropAnnotations, policy.IstioInjectKey)
	}
	if inject.IsTrue(a.pod.Labels[policy.IstioInjectKey]) && !slices.Contains(a.choices.KeepLabels, policy.IstioInjectKey) {
		a.dropLabels = append(a.dropLabels, policy.IstioInjectKey)
	}
}

// changeAnnotation sets an annotation to its remaining text, or drops it if none remains.
func (a *adopter) changeAnnotation(key, before, after string) {
	switch after {
	case before:
	case "":
		a.dropAnnotations = append(a.dropAnnotations, key)
	default:
		a.editedAnnotations[key] = after
	}
}

// adoptProxyConfig removes settings from proxy.istio.io/config.
func (a *adopter) adoptProxyConfig(value string) {
	field := "metadata.annotations[" + policy.IstioProxyConfigKey + "]"
	config, ok := parseProxyConfig(value).(fieldMap)
	if !ok {
		a.addError(field, "it is not a YAML mapping, so Istio does not read it; correct it")
		return
	}
	metadata, _ := config["proxyMetadata"].(itemMap)
	if metadata == nil && config["proxyMetadata"] != nil {
		a.addError(field+".proxyMetadata", "it is not a mapping, so Istio does not read it; correct it")
		return
	}
	var drop [][]string
	for name, v := range metadata {
		switch value := fmt.Sprint(v); {
		case name == "OUTPUT_CERTS",
			name == "ISTIO_META_DNS_CAPTURE" && value == "false" && a.usesInjector:
			drop = append(drop, []string{"proxyMetadata", name})
		case name == "SECRET_TTL" && a.usesInjector:
			a.adoptTTL(field+".proxyMetadata[SECRET_TTL]", value)
			drop = append(drop, []string{"proxyMetadata", name})
		}
	}
	if config["holdApplicationUntilProxyStarts"] == true && a.usesInjector {
		drop = append(drop, []string{"holdApplicationUntilProxyStarts"})
	}
	rest, err := removeYAMLKeys(value, drop)
	if err != nil {
		a.addError(field, "%v", err)
		return
	}
	a.changeAnnotation(policy.IstioProxyConfigKey, value, rest)
}
