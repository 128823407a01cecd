package controller

import (
	"maps"
	"slices"
	"time"

	"github.com/isthmus-mesh/isthmus/internal/events"
)

// state returns what is remembered of a namespace. Only one worker has a namespace
// at a time, so the result needs no lock, except for firstEnd.
func (r *reconciler) state(namespace string) *namespaceState {
	r.mu.Lock()
	defer r.mu.Unlock()
	s, ok := r.namespaces[namespace]
	if !ok {
		s = newNamespaceState(namespace, events.NewOnce(r.Events.Record))
		r.namespaces[namespace] = s
	}
	return s
}

// secretState returns what is remembered of a Secret.
func (r *reconciler) secretState(s *namespaceState, name string) *secretState {
	state, ok := s.secrets[name]
	if !ok {
		state = &secretState{}
		s.secrets[name] = state
		r.mu.Lock()
		r.secrets++
		r.mu.Unlock()
	}
	return state
}

// forgetUnclaimed forgets the Secrets that no edge claims any longer. They stay in
// the cluster: the next pod may come any moment and will find them, renewed if
// necessary.
func (r *reconciler) forgetUnclaimed(s *namespaceState, claimed map[string][]claim) {
	for name, state := range s.secrets {
		if _, ok := claimed[name]; ok {
			continue
		}
		delete(s.secrets, name)
		r.versions.forget(s.name, name)
		r.metrics.deleteSecret(state.target)
		r.mu.Lock()
		r.secrets--
		r.mu.Unlock()
	}
}

// forgetNamespace forgets what is remembered of a namespace.
func (r *reconciler) forgetNamespace(namespace string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if s, ok := r.namespaces[namespace]; ok {
		r.secrets -= len(s.secrets)
		delete(r.namespaces, namespace)
	}
	delete(r.waiting, namespace)
	r.versions.forgetNamespace(namespace)
	r.contexts.forgetNamespace(namespace)
	r.metrics.deleteNamespace(namespace)
	r.reportStale(namespace, nil)
}

// setWaiting notes whether a namespace waits for a source.
func (r *reconciler) setWaiting(namespace string, isWaiting bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if isWaiting {
		if _, ok := r.waiting[namespace]; !ok {
			r.waiting[namespace] = false
		}
		return
	}
	delete(r.waiting, namespace)
}

// wakeNamespaces lists the namespaces that wait for a source, and has the next
// reconciliation of each send its requests at once.
func (r *reconciler) wakeNamespaces() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	names := slices.Collect(maps.Keys(r.waiting))
	for _, name := range names {
		r.waiting[name] = true
	}
	return names
}

// isWoken reports, once, whether a namespace's source is available again.
func (r *reconciler) isWoken(namespace string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	isWoken := r.waiting[namespace]
	if isWoken {
		r.waiting[namespace] = false
	}
	return isWoken
}

// knownNamespaces lists the namespaces that have a state.
func (r *reconciler) knownNamespaces() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	names := make([]string, 0, len(r.namespaces))
	for name := range r.namespaces {
		names = append(names, name)
	}
	return names
}

// checkInterval is CheckInterval for the present number of Secrets.
func (r *reconciler) checkInterval() time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	return stretchInterval(r.CheckInterval, r.secrets)
}

// scanInterval is ScanInterval for the present number of namespaces.
func (r *reconciler) scanInterval() time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	return stretchInterval(r.ScanInterval, len(r.namespaces))
}

// leafSpread is spreadLeaves for the present number of Secrets.
func (r *reconciler) leafSpread() time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	return spreadLeaves(r.secrets)
}

// lifeLeft is what is left of the life of the certificate in a namespace that ends
// first; zero when there is none. The queue calls it in a goroutine of its own.
func (r *reconciler) lifeLeft(namespace string) time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	s, ok := r.namespaces[namespace]
	if !ok {
		return 0
	}
	return max(s.firstEnd.Sub(r.Clock.Now()), 0)
}

// setFirstEnd notes when the first of a namespace's valid certificates ends.
func (r *reconciler) setFirstEnd(s *namespaceState) {
	now, first := r.Clock.Now(), time.Time{}
	for _, secret := range s.secrets {
		if secret.notAfter.After(now) && (first.IsZero() || secret.notAfter.Before(first)) {
			first = secret.notAfter
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	s.firstEnd = first
}
