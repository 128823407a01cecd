package policy

import (
	"fmt"
	"slices"
)

// Asked says who opted a pod in.
type Asked int

// Who opted a pod in.
const (
	// Nobody asked.
	Nobody Asked = iota
	// ByNamespace: the namespace's label.
	ByNamespace
	// ByPod: the pod itself; it is denied where it cannot be injected.
	ByPod
)

// Verdict is the outcome of Decide.
type Verdict struct {
	Asked Asked
	// Reason is set when Asked is Nobody.
	Reason Reason
	// Denied: the pod must be refused, for Message.
	Denied  bool
	Message string
}

// Decide says whether a pod with these labels and annotations is opted in.
func Decide(labels, annotations map[string]string, ns Namespace, excluded []string) Verdict {
	label, hasLabel := labels[InjectKey]
	annotation, hasAnnotation := annotations[InjectKey]
	for _, v := range []struct {
		kind, value string
		present     bool
	}{{"label", label, hasLabel}, {"annotation", annotation, hasAnnotation}} {
		if v.present && v.value != "true" && v.value != "false" {
			return deny(InvalidOverride, `%s %s: %q is not allowed; want "true" or "false"`, v.kind, InjectKey, v.value)
		}
	}
	if hasLabel && hasAnnotation && label != annotation {
		return deny(Conflict, `label %[1]s is %[2]q and annotation %[1]s is %[3]q; remove one of them`, InjectKey, label, annotation)
	}
	asks := label == "true" || annotation == "true"
	refuses := label == "false" || annotation == "false"
	switch {
	case refuses:
		return Verdict{Reason: OptedOut}
	case slices.Contains(excluded, ns.Name):
		if asks {
			return deny(ExcludedNamespace, `%s is "true" but namespace %s is excluded from injection; remove the key, or run the pod in another namespace`, InjectKey, ns.Name)
		}
		return Verdict{Reason: ExcludedNamespace}
	case asks && ns.Labels[InjectionLabel] == InjectionDisabled:
		return deny(ExcludedNamespace, `%s is "true" but namespace %s is locked by its label %s=%s; remove the key, or ask the namespace's owner to remove the label`,
			InjectKey, ns.Name, InjectionLabel, InjectionDisabled)
	case asks:
		return Verdict{Asked: ByPod}
	case ns.Labels[InjectionLabel] == InjectionEnabled:
		return Verdict{Asked: ByNamespace}
	default:
		return Verdict{Reason: OptedOut}
	}
}

func deny(r Reason, format string, args ...any) Verdict {
	return Verdict{Reason: r, Denied: true, Message: fmt.Sprintf(format, args...)}
}
