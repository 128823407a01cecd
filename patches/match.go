package patches

import (
	"net/netip"
	"path"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// Candidate is a container that a profile recognises as an edge.
type Candidate struct {
	// Profile is the profile that matches.
	Profile *Profile
	// Container is the index in spec.containers.
	Container int
}

// Candidates returns every pair of profile and container that match, in the order of
// profiles and containers. A single candidate is the edge; several are a conflict
// that the caller must report.
func (s *Profiles) Candidates(pod *corev1.Pod) []Candidate {
	var found []Candidate
	for _, p := range s.list {
		for i := range pod.Spec.Containers {
			if p.matches(pod, &pod.Spec.Containers[i]) {
				found = append(found, Candidate{Profile: p, Container: i})
			}
		}
	}
	return found
}

// Reads reports whether the edge in this image reads the variable, according to
// Since.
func (e EnvVar) Reads(image string) bool {
	return e.Since == "" || !isTagOlder(image, e.Since)
}

// Reloads reports whether the edge in this image notices a rotated file without
// help.
func (f FileFacts) Reloads(image string) bool {
	switch f.ReloadSince {
	case "":
		return true
	case "never":
		return false
	default:
		return !isTagOlder(image, f.ReloadSince)
	}
}

func (p *Profile) matches(pod *corev1.Pod, c *corev1.Container) bool {
	matches := func(k Criteria) bool { return k.match(pod, c) }
	return slices.ContainsFunc(p.Match, matches) && !slices.ContainsFunc(p.Not, matches)
}

// match runs the cheap tests that rule out most containers first.
func (k Criteria) match(pod *corev1.Pod, c *corev1.Container) bool {
	if len(k.Images) > 0 {
		repo := repository(c.Image)
		if !slices.ContainsFunc(k.Images, func(s string) bool { return endsWithPath(repo, s) }) {
			return false
		}
	}
	if len(k.Containers) > 0 && !slices.Contains(k.Containers, c.Name) {
		return false
	}
	if len(k.RestartPolicies) > 0 && !slices.Contains(k.RestartPolicies, string(pod.Spec.RestartPolicy)) {
		return false
	}
	if len(k.Commands) > 0 && !slices.Contains(k.Commands, firstWord(c.Command)) {
		return false
	}
	if len(k.FirstWords) > 0 && !slices.Contains(k.FirstWords, firstWord(c.Command)) && !slices.Contains(k.FirstWords, firstWord(c.Args)) {
		return false
	}
	if len(k.Words) > 0 && !containsAny(c.Command, k.Words) && !containsAny(c.Args, k.Words) {
		return false
	}
	if len(k.Env) > 0 && !hasEnv(c, k.Env) {
		return false
	}
	if len(k.WithoutEnv) > 0 && hasEnv(c, k.WithoutEnv) {
		return false
	}
	for key, value := range k.Labels {
		if !hasLabel(pod, key, value) {
			return false
		}
	}
	for key, value := range k.WithoutLabels {
		if hasLabel(pod, key, value) {
			return false
		}
	}
	if len(k.OtherProbePaths) > 0 && !hasProbe(c, k.OtherProbePaths, isOtherHost) {
		return false
	}
	return len(k.ProbePaths) == 0 || hasProbe(c, k.ProbePaths, isPod)
}

func hasLabel(pod *corev1.Pod, key, value string) bool {
	v, ok := pod.Labels[key]
	return ok && v == value
}

// firstWord returns the base name of the first word, or "" if there is none. If the
// first element holds a whole command line, its first word counts.
func firstWord(words []string) string {
	if len(words) == 0 {
		return ""
	}
	fields := strings.Fields(words[0])
	if len(fields) == 0 {
		return ""
	}
	return path.Base(fields[0])
}

// containsAny reports whether one of the words contains one of the parts.
func containsAny(words, parts []string) bool {
	return slices.ContainsFunc(words, func(w string) bool {
		return slices.ContainsFunc(parts, func(p string) bool { return strings.Contains(w, p) })
	})
}

func hasEnv(c *corev1.Container, names []string) bool {
	return slices.ContainsFunc(c.Env, func(e corev1.EnvVar) bool { return slices.Contains(names, e.Name) })
}

// hasProbe reports whether an HTTP probe has a path with one of the prefixes, and a
// host that the caller wants.
func hasProbe(c *corev1.Container, prefixes []string, wanted func(host string) bool) bool {
	for _, p := range []*corev1.Probe{c.ReadinessProbe, c.LivenessProbe, c.StartupProbe} {
		if p == nil || p.HTTPGet == nil || !wanted(p.HTTPGet.Host) {
			continue
		}
		if slices.ContainsFunc(prefixes, func(s string) bool { return strings.HasPrefix(p.HTTPGet.Path, s) }) {
			return true
		}
	}
	return false
}

// isPod reports whether a probe of this host reaches the pod itself: the field is
// empty.
func isPod(host string) bool { return host == "" }

// isOtherHost reports whether a probe of this host reaches something else. A loopback
// address is the node's: with the host's network that may be the pod, so it is no sign
// of either.
func isOtherHost(host string) bool {
	if host == "" || host == "localhost" {
		return false
	}
	address, err := netip.ParseAddr(host)
	return err != nil || !address.IsLoopback()
}
