package mesh

import (
	"errors"
	"fmt"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/isthmus-mesh/isthmus/patches"
)

// ControlPlane holds the objects that describe one revision of Istio in a
// cluster. At least one of the two ConfigMaps is set.
type ControlPlane struct {
	// Namespace is the namespace that Istio is installed in.
	Namespace string
	// Revision is the revision's name, empty for the default one.
	Revision string
	// Injector is the ConfigMap istio-sidecar-injector[-<revision>], or nil.
	Injector *corev1.ConfigMap
	// MeshConfig is the ConfigMap istio[-<revision>], or nil.
	MeshConfig *corev1.ConfigMap
	// Istiod is the Deployment istiod[-<revision>], or nil.
	Istiod *appsv1.Deployment
}

// Settings reads the mesh settings from the objects. It applies neither explicit
// settings nor defaults. A value that Istio could not use either is an error that
// names the object, the path and the value.
func (p ControlPlane) Settings() (Settings, error) {
	if p.Injector == nil && p.MeshConfig == nil {
		return Settings{}, fmt.Errorf("istio revision %q has no ConfigMap", p.Revision)
	}
	r := settingsReader{
		ControlPlane: p,
		settings:     Settings{Sources: make(map[string]string)},
	}
	if err := errors.Join(r.parseInjectorValues(), r.parseMeshConfig()); err != nil {
		return Settings{}, err
	}
	r.setField(fieldRevision, sourcedValue{p.Revision, r.revisionSource()})
	r.readAddresses()
	r.readIdentity()
	r.readKeySettings()
	r.readImage()
	r.readRootLocation()
	r.readExtraRoots()
	r.readMaxCertTTL()
	if err := errors.Join(r.errs...); err != nil {
		return Settings{}, err
	}
	return r.settings, nil
}

// settingsReader turns a ControlPlane into Settings.
type settingsReader struct {
	ControlPlane
	values   injectorValues
	mesh     meshConfig
	settings Settings
	errs     []error
}

func (r *settingsReader) parseInjectorValues() error {
	if r.Injector == nil {
		return nil
	}
	if _, ok := r.Injector.Data[keyValues]; !ok {
		return fmt.Errorf("%s: missing", configMapPath(r.Injector, keyValues))
	}
	return decode(r.Injector, keyValues, &r.values)
}

func (r *settingsReader) parseMeshConfig() error {
	// Without the key, istiod runs with its built-in MeshConfig. That is not an
	// error.
	if r.MeshConfig == nil || r.MeshConfig.Data[keyMesh] == "" {
		return nil
	}
	return decode(r.MeshConfig, keyMesh, &r.mesh)
}

// sourcedValue is a value and the object and path that it comes from.
type sourcedValue struct{ value, source string }

func (r *settingsReader) fromValues(path, value string) sourcedValue {
	if r.Injector == nil {
		return sourcedValue{}
	}
	return sourcedValue{value, configMapPath(r.Injector, keyValues+"."+path)}
}

func (r *settingsReader) fromMesh(path, value string) sourcedValue {
	if r.MeshConfig == nil {
		return sourcedValue{}
	}
	return sourcedValue{value, configMapPath(r.MeshConfig, keyMesh+"."+path)}
}

func (r *settingsReader) fromMetadata(env, value string) sourcedValue {
	return r.fromMesh("defaultConfig.proxyMetadata."+env, value)
}

// fromIstiod returns an environment variable of istiod.
func (r *settingsReader) fromIstiod(env string) sourcedValue {
	if r.Istiod == nil {
		return sourcedValue{}
	}
	return sourcedValue{istiodEnvironment(r.Istiod)[env], fmt.Sprintf("Deployment %s/%s %s", r.Istiod.Namespace, r.Istiod.Name, env)}
}

// setField sets the field to its first candidate that is not empty, if that value
// is valid.
func (r *settingsReader) setField(name string, candidates ...sourcedValue) {
	fields := textFields()
	field := fields[slices.IndexFunc(fields, func(f textField) bool { return f.name == name })]
	for _, c := range candidates {
		if c.value == "" {
			continue
		}
		var single patches.Mesh
		*field.in(&single) = c.value
		if err := single.Validate(); err != nil {
			r.errs = append(r.errs, fmt.Errorf("%s: %w", c.source, err))
			return
		}
		*field.in(&r.settings.Mesh) = c.value
		r.settings.Sources[name] = c.source
		return
	}
}

func (r *settingsReader) warn(format string, args ...any) {
	r.settings.Warnings = append(r.settings.Warnings, fmt.Sprintf(format, args...))
}
