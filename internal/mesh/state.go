package mesh

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/isthmus-mesh/isthmus/patches"
)

// meshState is what is known of all revisions at one moment. It is never changed
// once made, so that reviews read it without a lock.
type meshState struct {
	namespace string
	explicit  patches.Mesh
	// absentReason says why no Istio is known, empty where none is there.
	absentReason string
	revisions    map[string]revisionState
	injectors    injectors
}

// revisionState is what is known of one revision.
type revisionState struct {
	// discovered is what its objects last said that made sense; nil when they never
	// did.
	discovered *Settings
	// effective is found with the explicit settings and the defaults.
	effective Settings
	// err is what is wrong with its objects now.
	err error
}

// next makes the state that follows s once the objects are these. A revision
// whose objects turned bad keeps what it had.
func (s *meshState) next(planes map[string]ControlPlane, injectors injectors) *meshState {
	next := &meshState{namespace: s.namespace, explicit: s.explicit, revisions: make(map[string]revisionState, len(planes)), injectors: injectors}
	for name, plane := range planes {
		discovered, err := plane.Settings()
		if err != nil {
			previous := s.revisions[name]
			previous.err = err
			next.revisions[name] = previous
			continue
		}
		next.revisions[name] = revisionState{discovered: &discovered, effective: discovered.withExplicit(s.explicit)}
	}
	return next
}

// settings returns the settings of the revision or tag that is asked for.
func (s *meshState) settings(requested string) (Settings, error) {
	settings, resolved, err := s.resolveSettings(requested)
	if err == nil && resolved.tag != "" {
		settings.Sources = maps.Clone(settings.Sources)
		settings.Sources[fieldRevision] = fmt.Sprintf("tag %s of %s", resolved.tag, resolved.source)
	}
	return settings, err
}

// resolveSettings is settings without the word about a tag, which costs a copy.
func (s *meshState) resolveSettings(requested string) (Settings, resolvedRevision, error) {
	if len(s.revisions) == 0 {
		return s.settingsWithoutIstio(requested)
	}
	resolved, err := s.resolve(requested)
	if err != nil {
		return Settings{}, resolvedRevision{}, err
	}
	r := s.revisions[resolved.revision]
	if r.discovered == nil {
		return Settings{}, resolvedRevision{}, fmt.Errorf("istio's settings cannot be read: %w", r.err)
	}
	return r.effective, resolved, nil
}

// err joins what is wrong with each revision, in the order of their names.
func (s *meshState) err() error {
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(s.revisions)) {
		errs = append(errs, s.revisions[name].err)
	}
	return errors.Join(errs...)
}

// settingsWithoutIstio returns the settings for a cluster in which no Istio was found. Tags may
// be known all the same.
func (s *meshState) settingsWithoutIstio(requested string) (Settings, resolvedRevision, error) {
	resolved, source := resolvedRevision{revision: normalizeRevision(requested)}, "asked for"
	if requested == "" {
		resolved.revision, source = normalizeRevision(s.explicit.Revision), SourceExplicit
	}
	if t, ok := s.injectors.tags[revisionName(resolved.revision)]; ok {
		if t.err != nil {
			return Settings{}, resolvedRevision{}, t.err
		}
		resolved = resolvedRevision{t.revision, revisionName(resolved.revision), t.source}
	}
	discovered := Settings{Mesh: patches.Mesh{Revision: resolved.revision}, Sources: map[string]string{fieldRevision: source}}
	if s.namespace != DefaultNamespace {
		discovered.Mesh.DiscoveryAddress = IstiodAddress(s.namespace, resolved.revision)
	}
	settings := discovered.withExplicit(s.explicit)
	warning := fmt.Sprintf("no Istio found in namespace %s: what is not given explicitly has its documented default", s.namespace)
	if s.absentReason != "" {
		warning += " (" + s.absentReason + ")"
	}
	settings.Warnings = append(settings.Warnings, warning)
	return settings, resolved, nil
}
