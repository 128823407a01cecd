package policy

import "fmt"

// InjectorRevision says which revision's injector of Istio the API server sends
// a pod to whose label sidecar.istio.io/inject is "true"; "" is the default one.
// It follows the selectors of Istio's chart (mutatingwebhook.yaml and
// revision-tags-mwc.yaml of istio-discovery): the namespace's istio-injection
// counts for more than its istio.io/rev, and that for more than the pod's. Never
// is why the pod is sent to none.
func InjectorRevision(podLabels map[string]string, ns Namespace) (revision, never string) {
	if v, ok := ns.Labels[IstioInjectionLabel]; ok {
		if v != "enabled" {
			return "", fmt.Sprintf("namespace %s has the label %s=%s, so Istio's injector is not called; remove the label, or set it to enabled", ns.Name, IstioInjectionLabel, v)
		}
		return "", ""
	}
	for _, place := range []struct {
		what   string
		labels map[string]string
	}{{"namespace " + ns.Name, ns.Labels}, {"the pod", podLabels}} {
		if v, ok := place.labels[IstioRevisionLabel]; ok && v == "" {
			return "", fmt.Sprintf("%s has the label %s without a value, which no injector of Istio's selects; remove the label, or name a revision", place.what, IstioRevisionLabel)
		} else if ok {
			return v, ""
		}
	}
	return "", ""
}
