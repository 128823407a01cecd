package controller

import (
	"maps"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/isthmus-mesh/isthmus/internal/events"
	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

// namespaceState is what is remembered of an opted-in namespace between two
// reconciliations. It is not persisted: a new leader observes everything again.
type namespaceState struct {
	name string
	podState
	// scanned is when the pods were last listed, and scanBasis the labels and
	// annotations of the namespace by which they were classified.
	scanned   time.Time
	scanBasis string
	// rescanned is true from the second scan on.
	rescanned bool
	// secrets are the Secrets that are checked, by name.
	secrets map[string]*secretState
	// applied is the content that is known to be applied to objects other than the
	// edges' Secrets, by name; empty content means that Isthmus manages no such
	// object.
	applied map[string]string
	// clashing are the namespaces on which an Event about a clash of TLSContexts was
	// recorded that has not been resolved.
	clashing map[string]bool
	// events are recorded once.
	events events.Once
	// firstEnd is when the first of the valid certificates ends; zero when there is none.
	// It alone is read by others than the worker that has the namespace, with the
	// reconciler's lock.
	firstEnd time.Time
}

// podState is what is remembered of the pods of a namespace, by their UID.
type podState struct {
	// claims are those of the pods. idle has the names of the pods that were read and
	// claim nothing.
	claims map[types.UID]claim
	idle   map[types.UID]string
	// unclear are the pods that hold a Secret while nothing says which.
	unclear map[types.UID]bool
	// stale are the pods that were stale when they were read. missing counts the pods
	// without an injection at the last scan, by mode.
	stale   map[types.UID]StalePod
	missing map[policy.Mode]int
}

func newPodState() podState {
	return podState{claims: map[types.UID]claim{}, idle: map[types.UID]string{}, unclear: map[types.UID]bool{}, stale: map[types.UID]StalePod{}, missing: map[policy.Mode]int{}}
}

func newNamespaceState(name string, once events.Once) *namespaceState {
	return &namespaceState{name: name, podState: newPodState(), secrets: map[string]*secretState{}, applied: map[string]string{}, clashing: map[string]bool{}, events: once}
}

// forgetApplied makes the next reconciliation check the objects other than the
// edges' Secrets again, and forgets the Events of pods that are gone.
func (s *namespaceState) forgetApplied() {
	maps.DeleteFunc(s.applied, func(_, content string) bool { return content != "" })
	names := make(map[string]bool, len(s.claims))
	for _, name := range s.idle {
		names[name] = true
	}
	for _, c := range s.claims {
		names[c.pod.Name] = true
		if c.owner != nil {
			names[c.owner.Name] = true
		}
	}
	s.events.DeleteFunc(func(kind, name string) bool {
		return !names[name] && !slices.Contains([]string{"Secret", "TLSContext", "RoleBinding", "Namespace"}, kind)
	})
}
