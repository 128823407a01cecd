package mesh

import (
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/isthmus-mesh/isthmus/internal/certs"
	"github.com/isthmus-mesh/isthmus/patches"
)

// meshState holds the settings of all revisions at one moment. It is immutable, so
// that admission requests read it without a lock.
type meshState struct {
	namespace string
	explicit  patches.Mesh
	// absentReason says why Istio's objects cannot be read; empty if they can, and
	// also if there are none.
	absentReason string
	revisions    map[string]revisionState
	injectors    injectors
	// extra holds the extra roots by revision.
	extra map[string]extraRoots
	// extraRoots are those of all revisions, and extraRootsErr says which of them
	// cannot be read.
	extraRoots    []*x509.Certificate
	extraRootsErr error
}

// extraRoots are the last good roots in the MeshConfig of one revision.
type extraRoots struct {
	roots []*x509.Certificate
	// err says what of them cannot be read now; nil if all can.
	err error
}

// revisionState holds the settings of one revision.
type revisionState struct {
	// discovered holds the last valid settings of the revision's objects; nil if
	// they never were valid.
	discovered *Settings
	// effective is discovered with the explicit settings and the defaults.
	effective Settings
	// err says why the objects are invalid now; nil if they are valid.
	err error
}

// next returns the state that follows s for the given objects. A revision whose
// objects became invalid keeps its settings.
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
	next.setExtraRoots(s.extra, planes)
	return next
}

// setExtraRoots sets the extra roots to those of all revisions. A MeshConfig that is
// absent says nothing about roots: a revision keeps its earlier ones, and so does each
// revision while no Istio is found. Only a revision that is gone while others are there
// takes its roots along.
func (s *meshState) setExtraRoots(earlier map[string]extraRoots, planes map[string]ControlPlane) {
	s.extra = make(map[string]extraRoots)
	keep := func(name string, err error) {
		if before := earlier[name]; len(before.roots) > 0 {
			s.extra[name] = extraRoots{before.roots, err}
		}
	}
	absent := func(name string) error {
		return fmt.Errorf("ConfigMap %s/%s does not exist: the roots that its %s.caCertificates had stay in use until it is back",
			s.namespace, objectName(meshConfigName, name), keyMesh)
	}
	for name, plane := range planes {
		switch r := s.revisions[name]; {
		case plane.MeshConfig == nil:
			keep(name, absent(name))
		case r.err != nil:
			keep(name, r.err)
		default:
			s.extra[name] = extraRoots{r.discovered.ExtraRoots, r.discovered.ExtraRootsErr}
		}
	}
	if len(planes) == 0 {
		for name := range earlier {
			keep(name, absent(name))
		}
	}
	var problems []error
	for _, name := range slices.Sorted(maps.Keys(s.extra)) {
		s.extraRoots = certs.MergeRoots(s.extraRoots, s.extra[name].roots)
		problems = append(problems, s.extra[name].err)
	}
	s.extraRootsErr = errors.Join(problems...)
}

// settings returns the settings of the requested revision or tag.
func (s *meshState) settings(requested string) (Settings, error) {
	settings, resolved, err := s.resolveSettings(requested)
	if err == nil && resolved.tag != "" {
		settings.Sources = maps.Clone(settings.Sources)
		settings.Sources[fieldRevision] = fmt.Sprintf("tag %s of %s", resolved.tag, resolved.source)
	}
	return settings, err
}

// resolveSettings does what settings does, but does not name the tag in Sources,
// which needs a copy of the map.
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

// err joins the errors of all revisions, in the order of their names.
func (s *meshState) err() error {
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(s.revisions)) {
		errs = append(errs, s.revisions[name].err)
	}
	return errors.Join(errs...)
}

// settingsWithoutIstio returns the settings for a cluster in which no Istio was
// found. Tags can exist nevertheless.
func (s *meshState) settingsWithoutIstio(requested string) (Settings, resolvedRevision, error) {
	resolved, source := resolvedRevision{revision: normalizeRevision(requested)}, "requested"
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
	warning := fmt.Sprintf("no Istio found in namespace %s: settings that are not given explicitly have their documented defaults", s.namespace)
	if s.absentReason != "" {
		warning += " (" + s.absentReason + ")"
	}
	settings.Warnings = append(settings.Warnings, warning)
	return settings, resolved, nil
}
