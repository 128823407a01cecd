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
	injectors injectors
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

// next makes the state that follows s once the objects are these. A revision
// whose objects turned bad keeps what it had.
func (s *state) next(planes map[string]ControlPlane, i injectors) *state {
	n := &state{namespace: s.namespace, explicit: s.explicit, revisions: make(map[string]revision, len(planes)), injectors: i}
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

// settings returns the settings of the revision or tag that is asked for.
func (s *state) settings(asked string) (Settings, error) {
	used, chosen, err := s.find(asked)
	if err == nil && chosen.tag != "" {
		used.Sources = maps.Clone(used.Sources)
		used.Sources[fieldRevision] = fmt.Sprintf("tag %s of %s", chosen.tag, chosen.source)
	}
	return used, err
}

// find is settings without the word about a tag, which costs a copy.
func (s *state) find(asked string) (Settings, choice, error) {
	if len(s.revisions) == 0 {
		return s.absent(asked)
	}
	chosen, err := s.choose(asked)
	if err != nil {
		return Settings{}, choice{}, err
	}
	r := s.revisions[chosen.revision]
	if r.found == nil {
		return Settings{}, choice{}, fmt.Errorf("istio's settings cannot be read: %w", r.err)
	}
	return r.used, chosen, nil
}

// err joins what is wrong with each revision, in the order of their names.
func (s *state) err() error {
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(s.revisions)) {
		errs = append(errs, s.revisions[name].err)
	}
	return errors.Join(errs...)
}

// absent returns the settings for a cluster in which no Istio was found. Tags may
// be known all the same.
func (s *state) absent(asked string) (Settings, choice, error) {
	chosen, source := choice{revision: plain(asked)}, "asked for"
	if asked == "" {
		chosen.revision, source = plain(s.explicit.Revision), SourceExplicit
	}
	if t, ok := s.injectors.tags[spoken(chosen.revision)]; ok {
		if t.err != nil {
			return Settings{}, choice{}, t.err
		}
		chosen = choice{t.revision, spoken(chosen.revision), t.source}
	}
	found := Settings{Mesh: patches.Mesh{Revision: chosen.revision}, Sources: map[string]string{fieldRevision: source}}
	if s.namespace != DefaultNamespace {
		found.Mesh.DiscoveryAddress = IstiodAddress(s.namespace, chosen.revision)
	}
	used := found.use(s.explicit)
	warning := fmt.Sprintf("no Istio found in namespace %s: what is not given explicitly has its documented default", s.namespace)
	if s.reason != "" {
		warning += " (" + s.reason + ")"
	}
	used.Warnings = append(used.Warnings, warning)
	return used, chosen, nil
}
