// Package mesh learns from a cluster how its Istio is set up: trust domain,
// certificate authority, cluster and mesh id, network, proxy image. It reads
// what Istio's own injector reads, so that a pod gets the identity that a
// sidecar of Istio would get.
//
// Explicit settings win over what is discovered, and that wins over the
// defaults that patches.Mesh documents. Watcher follows a cluster; Discover
// looks once.
package mesh

import (
	"fmt"
	"slices"

	"github.com/isthmus-mesh/isthmus/patches"
)

// Where a setting that no object of the cluster gave comes from.
const (
	// SourceExplicit marks a setting given by a flag or a settings file.
	SourceExplicit = "flag or settings file"
	// SourceDefault marks a documented default.
	SourceDefault = "default"
)

// Settings are the settings of one mesh and where each of them came from.
type Settings struct {
	// Mesh holds the settings.
	Mesh patches.Mesh
	// Sources says for each field of Mesh that is set, by its name in JSON,
	// where the value came from: SourceExplicit, SourceDefault or an object of
	// the cluster with the path inside it.
	Sources map[string]string
	// Warnings are sentences about what was found and could not be used. None
	// of them makes the settings wrong.
	Warnings []string
}

// Describe lists the settings, one line each, as "field=value (source)", in the
// order of the fields of patches.Mesh. Fields that are not known are left out.
func (s Settings) Describe() []string {
	var lines []string
	line := func(name, value string) {
		if value != "" {
			lines = append(lines, fmt.Sprintf("%s=%s (%s)", name, value, s.Sources[name]))
		}
	}
	for _, f := range textFields() {
		if f.name == fieldRootConfigMap && s.Mesh.RootClusterTrustBundle != "" && s.Sources[f.name] == SourceDefault {
			continue // the bundle takes its place
		}
		line(f.name, *f.in(&s.Mesh))
	}
	if s.Mesh.MaxCertTTL != 0 {
		line(fieldMaxCertTTL, s.Mesh.MaxCertTTL.String())
	}
	return lines
}

// use returns the settings with explicit over them and the documented defaults
// under both. The revision of s stays: explicit names the one that is used when
// nobody asks for another, so it was heeded when s was chosen.
func (s Settings) use(explicit patches.Mesh) Settings {
	explicit.Revision = s.Mesh.Revision
	found := s.Mesh
	if explicit.RootConfigMap != "" && explicit.RootClusterTrustBundle == "" {
		// The bundle replaces the ConfigMap wherever there is one, so keeping a
		// discovered bundle would overrule the ConfigMap that was asked for.
		found.RootClusterTrustBundle = ""
	}
	used := Settings{
		Mesh:     found.Overlay(explicit).Defaults(),
		Sources:  make(map[string]string),
		Warnings: slices.Clone(s.Warnings),
	}
	source := func(name string, isExplicit, isSet bool) {
		switch {
		case isExplicit && name != fieldRevision:
			used.Sources[name] = SourceExplicit
		case !isSet:
		case s.Sources[name] != "":
			used.Sources[name] = s.Sources[name]
		default:
			used.Sources[name] = SourceDefault
		}
	}
	for _, f := range textFields() {
		source(f.name, *f.in(&explicit) != "", *f.in(&used.Mesh) != "")
	}
	source(fieldMaxCertTTL, explicit.MaxCertTTL != 0, used.Mesh.MaxCertTTL != 0)
	return used
}

// Names of fields that are treated apart, as in the JSON of patches.Mesh.
const (
	fieldRevision      = "revision"
	fieldRootConfigMap = "rootConfigMap"
	fieldMaxCertTTL    = "maxCertTTL"
)

// textField is one field of patches.Mesh that holds text.
type textField struct {
	// name is the field's name in JSON.
	name string
	// in returns the field of m.
	in func(m *patches.Mesh) *string
}

// textFields lists every text field of patches.Mesh in its order.
func textFields() []textField {
	var fields []textField
	for _, f := range patches.MeshTextFields() {
		fields = append(fields, textField{f.Name, f.In})
	}
	return fields
}
