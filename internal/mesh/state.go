package mesh

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/isthmus-mesh/isthmus/patches"
)

// state is what is known of all revisions at one moment. It is never changed
// once made, so that reviews read it without a lock.
type state struct {
	namespace string
	explicit  patches.Mesh
	// reason says why no Istio is known, empty where none is there.
	reason    string
	revisions map[string]revision
}

// revision is what is known of one revision.
type revision struct {
	// found is what its objects last said that made sense; nil when they never
	// did.
	found *Settings
	// used is found with the explicit settings and the defaults.
	used Settings
	// err is what is wrong with its objects now.
	err error
}

// next makes the state that follows s once the objects are planes. A revision
// whose objects turned bad keeps what it had.
func (s *state) next(planes map[string]ControlPlane) *state {
	n := &state{namespace: s.namespace, explicit: s.explicit, revisions: make(map[string]revision, len(planes))}
	for name, plane := range planes {
		found, err := plane.Settings()
		if err != nil {
			kept := s.revisions[name]
			kept.err = err
			n.revisions[name] = kept
			continue
		}
		n.revisions[name] = revision{found: &found, used: found.use(s.explicit)}
	}
	return n
}

// settings returns the settings of the revision that is asked for.
func (s *state) settings(asked string) (Settings, error) {
	if len(s.revisions) == 0 {
		return absent(s.namespace, asked, s.explicit, s.reason), nil
	}
	name, err := choose(s.namespace, asked, s.explicit.Revision, s.revisions)
	if err != nil {
		return Settings{}, err
	}
	r := s.revisions[name]
	if r.found == nil {
		return Settings{}, fmt.Errorf("istio's settings cannot be read: %w", r.err)
	}
	return r.used, nil
}

// err joins what is wrong with each revision, in the order of their names.
func (s *state) err() error {
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(s.revisions)) {
		errs = append(errs, s.revisions[name].err)
	}
	return errors.Join(errs...)
}

// absent returns the settings for a cluster in which no Istio was found.
func absent(namespace, asked string, explicit patches.Mesh, reason string) Settings {
	rev, source := plain(asked), "asked for"
	if asked == "" {
		rev, source = plain(explicit.Revision), SourceExplicit
	}
	s := Settings{Mesh: patches.Mesh{Revision: rev}, Sources: map[string]string{fieldRevision: source}}
	if namespace != DefaultNamespace {
		s.Mesh.DiscoveryAddress = IstiodAddress(namespace, rev)
	}
	used := s.use(explicit)
	warning := fmt.Sprintf("no Istio found in namespace %s: what is not given explicitly has its documented default", namespace)
	if reason != "" {
		warning += " (" + reason + ")"
	}
	used.Warnings = append(used.Warnings, warning)
	return used
}
