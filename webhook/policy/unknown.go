package policy

import (
	"fmt"
	"slices"
	"strings"
)

// UnknownKeys warns of every unknown key under Domain, with the nearest known key,
// and of every known key in a place where it has no effect.
func UnknownKeys(labels, annotations map[string]string, ns Namespace) []Warning {
	var out []Warning
	check := func(kind, owner string, values map[string]string, location keyLocation) {
		var keys []string
		for key := range values {
			if strings.HasPrefix(key, Domain) {
				keys = append(keys, key)
			}
		}
		slices.Sort(keys)
		for _, key := range keys {
			allowed, known := keyLocations[key]
			switch {
			case !known:
				out = append(out, Warning{"unknown-key", fmt.Sprintf("%s%s %s is not known and has no effect; did you mean %s?", owner, kind, key, nearestKey(key, location))})
			case allowed&location == 0:
				out = append(out, Warning{"misplaced-key", fmt.Sprintf("%s%s %s has no effect there; use it as %s", owner, kind, key, allowed)})
			}
		}
	}
	check("label", "", labels, podLabel)
	check("annotation", "", annotations, podAnnotation)
	owner := "namespace " + ns.Name + ": "
	check("label", owner, ns.Labels, namespaceLabel)
	check("annotation", owner, ns.Annotations, namespaceAnnotation)
	return out
}

// String lists the locations for a sentence.
func (l keyLocation) String() string {
	var names []string
	for _, n := range []struct {
		location keyLocation
		name     string
	}{
		{podAnnotation, "an annotation of a pod"}, {podLabel, "a label of a pod"},
		{workloadAnnotation, "an annotation of a workload itself (Deployment, StatefulSet, DaemonSet)"},
		{namespaceAnnotation, "an annotation of a namespace"}, {namespaceLabel, "a label of a namespace"},
	} {
		if l&n.location != 0 {
			names = append(names, n.name)
		}
	}
	return strings.Join(names, " or ")
}

// nearestKey returns the known key with the smallest edit distance. Of several keys
// with the same distance it prefers one that has an effect at the location.
func nearestKey(key string, location keyLocation) string {
	best, bestScore := "", 1<<30
	candidates := make([]string, 0, len(keyLocations))
	for k := range keyLocations {
		if k != StatusKey && k != InjectedLabel && k != RestartedForKey {
			candidates = append(candidates, k)
		}
	}
	slices.Sort(candidates)
	for _, k := range candidates {
		score := 2 * editDistance(key, k)
		if keyLocations[k]&location == 0 {
			score++
		}
		if score < bestScore {
			best, bestScore = k, score
		}
	}
	return best
}

// editDistance is the Levenshtein distance.
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, diagonal+1)
		}
	}
	return row[len(b)]
}
