package policy

// Selection is how pod and namespace say which container is the edge. Whether the
// profile and the container exist is checked by the engine, which knows profiles and
// pod.
type Selection struct {
	// Profile is the name of the profile that the pod chose, bypassing matching.
	// HasProfile is true if it chose one.
	Profile    string
	HasProfile bool
	// NamespaceProfile is the name of the only profile that may match, as the
	// namespace chose it. HasNamespaceProfile is true if it chose one.
	NamespaceProfile    string
	HasNamespaceProfile bool
	// Container is the name of the edge container. It is empty if the pod does not
	// name one.
	Container string
}

// ReadSelection reads the annotations that take part in recognising an edge. The
// problem is one of the pod.
func ReadSelection(podAnnotations map[string]string, ns Namespace) (Selection, *Problem) {
	r := resolver{podAnnotations: podAnnotations, ns: ns}
	var s Selection
	profile, onPod := podAnnotations[ProfileKey]
	namespaceProfile, onNamespace := ns.Annotations[ProfileKey]
	switch {
	case onPod:
		s.HasProfile = true
		if problem := parseBounded(ProfileKey, profile, assignTo(&s.Profile)); problem != "" {
			r.reportPod(ProfileKey, profile, problem)
		}
	case onNamespace:
		s.HasNamespaceProfile, s.NamespaceProfile = true, namespaceProfile
	}
	if container, ok := podAnnotations[ContainerKey]; ok {
		problem := parseBounded(ContainerKey, container, assignTo(&s.Container))
		if container == "" {
			problem = "want the name of one of the pod's containers"
		}
		if problem != "" {
			r.reportPod(ContainerKey, container, problem)
		}
	}
	return s, r.podProblem
}

// assignTo returns a parse function that allows every value.
func assignTo(dst *string) func(string) string {
	return func(v string) string {
		*dst = v
		return ""
	}
}
