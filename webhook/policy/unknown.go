package policy

import (
	"fmt"
	"slices"
	"strings"
)

// maxKeys is how many keys UnknownKeys warns of at most, in each of the four places.
// More warnings do not reach the user (BoundWarnings).
const maxKeys = 32

// maxNearestKey is the longest key in bytes for which the nearest known key is
// determined.
const maxNearestKey = 64

// UnknownKeys warns of unknown keys under Domain, with the nearest known key, and of
// known keys in a place where they have no effect. omitted is the number of keys that
// it does not warn of, because there are too many.
func UnknownKeys(labels, annotations map[string]string, ns Namespace) (warnings []Warning, omitted int) {
	check := func(kind, owner string, values map[string]string, location keyLocation) {
		var keys []string
		for key := range values {
			if strings.HasPrefix(key, Domain) && keyLocations[key]&location == 0 {
				keys = append(keys, key)
			}
		}
		slices.Sort(keys)
		if len(keys) > maxKeys {
			omitted += len(keys) - maxKeys
			keys = keys[:maxKeys]
		}
		for _, key := range keys {
			if allowed, known := keyLocations[key]; known {
				warnings = append(warnings, Warning{"misplaced-key", fmt.Sprintf("%s%s %s has no effect there; use it as %s", owner, kind, key, allowed)})
				continue
			}
			warnings = append(warnings, unknownKey(owner+kind, key, location))
		}
	}
	check("label", "", labels, podLabel)
	check("annotation", "", annotations, podAnnotation)
	owner := "namespace " + ns.Name + ": "
	check("label", owner, ns.Labels, namespaceLabel)
	check("annotation", owner, ns.Annotations, namespaceAnnotation)
	return warnings, omitted
}

func unknownKey(where, key string, location keyLocation) Warning {
	if len(key) > maxNearestKey {
		return Warning{"unknown-key", fmt.Sprintf("%s %s (%d bytes) is not known and has no effect; remove it", where, Clip(key, maxNearestKey), len(key))}
	}
	return Warning{"unknown-key", fmt.Sprintf("%s %s is not known and has no effect; did you mean %s?", where, key, nearestKey(key, location))}
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
