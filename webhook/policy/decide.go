package policy

import (
	"fmt"
	"slices"
)

// OptIn is who opted a pod in.
type OptIn int

// The ways to opt in.
const (
	// NotOptedIn: neither the pod nor its namespace opted in.
	NotOptedIn OptIn = iota
	// OptedInByNamespace: the namespace's label opted the pod in.
	OptedInByNamespace
	// OptedInByPod: the pod's own label or annotation did. Such a pod is denied if it
	// cannot be injected.
	OptedInByPod
)

// Verdict is the outcome of Decide.
type Verdict struct {
	// OptIn is who opted the pod in.
	OptIn OptIn
	// Reason is set when OptIn is NotOptedIn.
	Reason Reason
	// Denied is true when the pod must be refused.
	Denied bool
	// Message says why the pod is denied; empty when it is not.
	Message string
}

// Decide decides whether a pod with these labels and annotations is opted in.
func Decide(labels, annotations map[string]string, ns Namespace, excludedNamespaces []string) Verdict {
	label, hasLabel := labels[InjectKey]
	annotation, hasAnnotation := annotations[InjectKey]
	for _, v := range []struct {
		kind, value string
		isSet       bool
	}{{"label", label, hasLabel}, {"annotation", annotation, hasAnnotation}} {
		if v.isSet && v.value != "true" && v.value != "false" {
			return deny(InvalidOverride, `%s %s`, v.kind, notAllowed(InjectKey, v.value, `want "true" or "false"`))
		}
	}
	if hasLabel && hasAnnotation && label != annotation {
		return deny(Conflict, `label %[1]s is %[2]q and annotation %[1]s is %[3]q; remove one of them`, InjectKey, label, annotation)
	}
	optsIn := label == "true" || annotation == "true"
	optsOut := label == "false" || annotation == "false"
	switch {
	case optsOut:
		return Verdict{Reason: OptedOut}
	case slices.Contains(excludedNamespaces, ns.Name):
		if optsIn {
			return deny(ExcludedNamespace, `%s is "true" but namespace %s is excluded from injection; remove the key, or run the pod in another namespace`, InjectKey, ns.Name)
		}
		return Verdict{Reason: ExcludedNamespace}
	case optsIn && ns.Labels[InjectionLabel] == InjectionDisabled:
		return deny(ExcludedNamespace, `%s is "true" but namespace %s is locked by its label %s=%s; remove the key, or ask the namespace's owner to remove the label`,
			InjectKey, ns.Name, InjectionLabel, InjectionDisabled)
	case optsIn:
		return Verdict{OptIn: OptedInByPod}
	case ns.Labels[InjectionLabel] == InjectionEnabled:
		return Verdict{OptIn: OptedInByNamespace}
	default:
		return Verdict{Reason: OptedOut}
	}
}

func deny(reason Reason, format string, args ...any) Verdict {
	return Verdict{Reason: reason, Denied: true, Message: fmt.Sprintf(format, args...)}
}
