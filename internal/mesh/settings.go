// Package mesh discovers the settings of the Istio in a cluster: trust domain,
// certificate authority, cluster and mesh ID, network, proxy image. It reads the
// objects that Istio's own injector reads, so that a pod gets the identity that a
// sidecar of Istio would get.
//
// Explicit settings override discovered ones, and those override the defaults that
// patches.Mesh documents. Watcher watches a cluster; Discover reads it once.
package mesh

import (
	"crypto/x509"
	"fmt"
	"slices"
	"strings"

	"github.com/isthmus-mesh/isthmus/patches"
)

// Sources of settings that do not come from an object of the cluster.
const (
	// SourceExplicit is the source of a setting from a flag or a settings file.
	SourceExplicit = "flag or settings file"
	// SourceDefault is the source of a documented default.
	SourceDefault = "default"
)

// Settings holds the settings of one mesh and the source of each.
type Settings struct {
	// Mesh holds the settings.
	Mesh patches.Mesh
	// Sources holds the source of each field of Mesh that is set, by the field's
	// name in JSON: SourceExplicit, SourceDefault, or an object of the cluster with
	// the path inside it.
	Sources map[string]string
	// ExtraRoots are the trust anchors in MeshConfig.caCertificates. Other clusters
	// and CAs of the mesh sign with them.
	ExtraRoots []*x509.Certificate
	// ExtraRootsErr names what of MeshConfig.caCertificates cannot be read; nil if
	// all can.
	ExtraRootsErr error
	// Warnings are sentences about values that were found and could not be used.
	// The settings are valid without those values.
	Warnings []string
}

// Describe lists the settings, one line each, as "field=value (source)", in the
// order of the fields of patches.Mesh. It leaves out fields that are not set.
func (s Settings) Describe() []string {
	var lines []string
	line := func(name, value string) {
		if value != "" {
			lines = append(lines, fmt.Sprintf("%s=%s (%s)", name, value, s.Sources[name]))
		}
	}
	for _, f := range textFields() {
		if f.name == fieldRootConfigMap && s.Mesh.RootClusterTrustBundle != "" && s.Sources[f.name] == SourceDefault {
			continue // the bundle replaces the ConfigMap
		}
		line(f.name, *f.in(&s.Mesh))
	}
	if s.Mesh.MaxCertTTL != 0 {
		line(fieldMaxCertTTL, s.Mesh.MaxCertTTL.String())
	}
	line(fieldExtraRoots, strings.Join(describeRoots(s.ExtraRoots), "; "))
	return lines
}

// withExplicit returns the settings with explicit settings over them and the
// documented defaults under both. The revision of s stays: the explicit revision
// selects the settings of requests that name none, so it had its effect when s was
// selected.
func (s Settings) withExplicit(explicit patches.Mesh) Settings {
	explicit.Revision = s.Mesh.Revision
	discovered := s.Mesh
	if explicit.RootConfigMap != "" && explicit.RootClusterTrustBundle == "" {
		// A bundle takes precedence over a ConfigMap, so a discovered bundle would
		// override the explicit ConfigMap.
		discovered.RootClusterTrustBundle = ""
	}
	if explicit.CAAddress != "" && !hasIstiodName(discovered.Overlay(explicit)) {
		discovered.CAServerName = ""
	}
	settings := Settings{
		Mesh:     discovered.Overlay(explicit).WithDefaults(),
		Sources:  make(map[string]string),
		Warnings: slices.Clone(s.Warnings),

		ExtraRoots: s.ExtraRoots, ExtraRootsErr: s.ExtraRootsErr,
	}
	source := func(name string, isExplicit, isSet bool) {
		switch {
		case isExplicit && name != fieldRevision:
			settings.Sources[name] = SourceExplicit
		case !isSet:
		case s.Sources[name] != "":
			settings.Sources[name] = s.Sources[name]
		default:
			settings.Sources[name] = SourceDefault
		}
	}
	for _, f := range textFields() {
		source(f.name, *f.in(&explicit) != "", *f.in(&settings.Mesh) != "")
	}
	source(fieldExtraRoots, false, len(s.ExtraRoots) > 0)
	source(fieldMaxCertTTL, explicit.MaxCertTTL != 0, settings.Mesh.MaxCertTTL != 0)
	return settings
}

// Names of fields that are treated apart, as in the JSON of patches.Mesh.
const (
	fieldRevision      = "revision"
	fieldRootConfigMap = "rootConfigMap"
	fieldCAServerName  = "caServerName"
	fieldMaxCertTTL    = "maxCertTTL"
	fieldExtraRoots    = "caCertificates" // of MeshConfig, not of patches.Mesh
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
