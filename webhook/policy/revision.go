package policy

import "fmt"

// InjectorRevision returns the revision of Istio whose injector the API server calls
// for a pod with the label sidecar.istio.io/inject "true"; "" is the default
// revision. It follows the selectors of Istio's chart (mutatingwebhook.yaml and
// revision-tags-mwc.yaml of istio-discovery): the namespace's istio-injection wins
// over its istio.io/rev, and that wins over the pod's. If no injector is called,
// notCalled says why in a sentence; otherwise it is empty.
func InjectorRevision(podLabels map[string]string, ns Namespace) (revision, notCalled string) {
	if v, ok := ns.Labels[IstioInjectionLabel]; ok {
		if v != "enabled" {
			return "", fmt.Sprintf("namespace %s has the label %s=%s, so Istio's injector is not called; remove the label, or set it to enabled", ns.Name, IstioInjectionLabel, v)
		}
		return "", ""
	}
	for _, labelled := range []struct {
		name   string
		labels map[string]string
	}{{"namespace " + ns.Name, ns.Labels}, {"the pod", podLabels}} {
		if v, ok := labelled.labels[IstioRevisionLabel]; ok && v == "" {
			return "", fmt.Sprintf("%s has the label %s without a value, which no injector of Istio selects; remove the label, or set it to a revision", labelled.name, IstioRevisionLabel)
		} else if ok {
			return v, ""
		}
	}
	return "", ""
}
