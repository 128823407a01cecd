package inject

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/isthmus-mesh/isthmus/patches"
	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

// Edge is the edge in a pod.
type Edge struct {
	// Profile is the name of the profile that recognises it.
	Profile string
	// Container is its index in spec.containers.
	Container int
	// Secret are the profile's facts about Secrets.
	Secret patches.SecretFacts
}

// FindEdge finds the edge in a pod. If there is no single edge, reason is not empty and
// message says why.
func (e *Engine) FindEdge(req Request) (edge Edge, reason policy.Reason, message string) {
	s := &subject{engine: e, Request: req, optIn: policy.OptedInByNamespace}
	if r := s.findEdge(); r != nil {
		return Edge{}, r.Reason, r.Message
	}
	return Edge{Profile: s.profile.Name, Container: s.edge, Secret: s.profile.Secret}, "", ""
}

// findEdge sets profile and edge container. It returns the decision if there is no
// single edge, else nil.
func (s *subject) findEdge() *Result {
	selection, problem := policy.ReadSelection(s.Pod.Annotations, s.Namespace)
	var all []patches.Candidate
	if !selection.HasProfile {
		all = s.engine.profiles.Candidates(s.Pod)
		if len(all) == 0 && s.optIn == policy.OptedInByNamespace {
			return &Result{Reason: policy.NoProfile}
		}
	}
	if problem != nil {
		r := denied(policy.InvalidOverride, problem.Message)
		return &r
	}
	if name := selection.Container; name != "" && containerIndex(s.Pod.Spec.Containers, name) < 0 {
		r := denied(policy.InvalidOverride, fmt.Sprintf("annotation %s: %q is not a container of the pod; its containers are %s",
			policy.ContainerKey, name, containerNames(s.Pod)))
		return &r
	}
	if selection.HasProfile {
		return s.chooseNamedProfile(selection)
	}
	if name := selection.NamespaceProfile; selection.HasNamespaceProfile && len(all) > 0 && s.engine.profiles.ByName(name) == nil {
		r := s.refuse(policy.InvalidOverride, s.engine.unknownProfileMessage(s.Namespace, name))
		return &r
	}
	candidates := s.filterCandidates(all, selection)
	if len(candidates) == 1 {
		s.profile, s.edge = candidates[0].Profile, candidates[0].Container
		return nil
	}
	var r Result
	switch {
	case len(candidates) > 1:
		r = s.refuse(policy.Conflict, fmt.Sprintf("more than one edge was recognised (%s); say which with %s and %s",
			s.describeCandidates(candidates), policy.ProfileKey, policy.ContainerKey))
	case s.optIn == policy.OptedInByPod:
		r = denied(policy.NoProfile, fmt.Sprintf("no profile recognises an edge among the containers %s; name a profile with %s (%s), and the container with %s",
			containerNames(s.Pod), policy.ProfileKey, strings.Join(s.engine.profiles.Names(), ", "), policy.ContainerKey))
	default:
		r = Result{Reason: policy.NoProfile}
	}
	return &r
}

// filterCandidates drops the candidates that namespace or pod exclude.
func (s *subject) filterCandidates(all []patches.Candidate, selection policy.Selection) []patches.Candidate {
	matching := all[:0]
	for _, c := range all {
		if selection.HasNamespaceProfile && c.Profile.Name != selection.NamespaceProfile {
			continue
		}
		if selection.Container != "" && s.Pod.Spec.Containers[c.Container].Name != selection.Container {
			continue
		}
		matching = append(matching, c)
	}
	return matching
}

// chooseNamedProfile uses the profile that the pod names, and finds the container for
// it.
func (s *subject) chooseNamedProfile(selection policy.Selection) *Result {
	s.profile = s.engine.profiles.ByName(selection.Profile)
	if s.profile == nil {
		r := denied(policy.InvalidOverride, fmt.Sprintf("annotation %s: %q is not a profile; known are %s",
			policy.ProfileKey, selection.Profile, strings.Join(s.engine.profiles.Names(), ", ")))
		return &r
	}
	if name := selection.Container; name != "" {
		s.edge = containerIndex(s.Pod.Spec.Containers, name)
		return nil
	}
	if len(s.Pod.Spec.Containers) == 1 {
		s.edge = 0
		return nil
	}
	found := -1
	for _, c := range s.engine.profiles.Candidates(s.Pod) {
		if found >= 0 && found != c.Container {
			found = -1
			break
		}
		found = c.Container
	}
	if found >= 0 {
		s.edge = found
		return nil
	}
	r := s.refuse(policy.Conflict, fmt.Sprintf("profile %s cannot tell which of the containers %s is the edge; name it with %s",
		s.profile.Name, containerNames(s.Pod), policy.ContainerKey))
	return &r
}

func (s *subject) describeCandidates(candidates []patches.Candidate) string {
	names := make([]string, len(candidates))
	for i, c := range candidates {
		names[i] = c.Profile.Name + " in container " + s.Pod.Spec.Containers[c.Container].Name
	}
	return strings.Join(names, ", ")
}

func containerNames(pod *corev1.Pod) string {
	names := make([]string, len(pod.Spec.Containers))
	for i := range pod.Spec.Containers {
		names[i] = pod.Spec.Containers[i].Name
	}
	return strings.Join(names, ", ")
}

func containerIndex(list []corev1.Container, name string) int {
	return slices.IndexFunc(list, func(c corev1.Container) bool { return c.Name == name })
}
