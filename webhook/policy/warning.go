package policy

import (
	"fmt"
	"slices"
	"strings"
)

// UnknownKeys warns of every key of ours that is not known, with the nearest
// one that is, and of every one that stands where it has no effect.
func UnknownKeys(labels, annotations map[string]string, ns Namespace) []Warning {
	var out []Warning
	check := func(kind, owner string, keys map[string]string, allowed place) {
		var ours []string
		for key := range keys {
			if strings.HasPrefix(key, Domain) {
				ours = append(ours, key)
			}
		}
		slices.Sort(ours)
		for _, key := range ours {
			p, known := places[key]
			switch {
			case !known:
				out = append(out, Warning{"unknown-key", fmt.Sprintf("%s %s%s is not known and has no effect; did you mean %s?", kind, owner, key, nearest(key, allowed))})
			case p&allowed == 0:
				out = append(out, Warning{"misplaced-key", fmt.Sprintf("%s %s%s has no effect there; it is %s", kind, owner, key, p)})
			}
		}
	}
	check("label", "", labels, podLabel)
	check("annotation", "", annotations, podAnnotation)
	owner := "of namespace " + ns.Name + ": "
	check("label", owner, ns.Labels, namespaceLabel)
	check("annotation", owner, ns.Annotations, namespaceAnnotation)
	return out
}

// String names the places in a sentence.
func (p place) String() string {
	var names []string
	for _, n := range []struct {
		place place
		name  string
	}{
		{podAnnotation, "an annotation of a pod"}, {podLabel, "a label of a pod"},
		{workloadAnnotation, "an annotation of a workload itself (Deployment, StatefulSet, DaemonSet)"},
		{namespaceAnnotation, "an annotation of a namespace"}, {namespaceLabel, "a label of a namespace"},
	} {
		if p&n.place != 0 {
			names = append(names, n.name)
		}
	}
	return strings.Join(names, " or ")
}

// nearest returns the known key with the smallest edit distance, preferring
// those that may stand at the place.
func nearest(key string, at place) string {
	best, score := "", 1<<30
	keys := make([]string, 0, len(places))
	for k := range places {
		if k != StatusKey && k != InjectedLabel && k != RestartedForKey {
			keys = append(keys, k)
		}
	}
	slices.Sort(keys)
	for _, k := range keys {
		d := 2 * distance(key, k)
		if places[k]&at == 0 {
			d++
		}
		if d < score {
			best, score = k, d
		}
	}
	return best
}

// distance is Levenshtein's.
func distance(a, b string) int {
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
