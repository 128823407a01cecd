package mesh

import (
	"errors"
	"fmt"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/isthmus-mesh/isthmus/patches"
)

// ControlPlane is what describes one revision of Istio in a cluster. At least
// one of the ConfigMaps is there.
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

// Settings reads what the objects say, without explicit settings and without
// defaults. A value that Istio could not use either is an error that names
// object, path and value.
func (p ControlPlane) Settings() (Settings, error) {
	if p.Injector == nil && p.MeshConfig == nil {
		return Settings{}, fmt.Errorf("istio revision %q: no ConfigMap of it is there", p.Revision)
	}
	r := reader{
		ControlPlane: p,
		found:        Settings{Sources: make(map[string]string)},
	}
	if err := errors.Join(r.parseInjector(), r.parseMesh()); err != nil {
		return Settings{}, err
	}
	r.set(fieldRevision, sourced{p.Revision, r.origin()})
	r.addresses()
	r.identity()
	r.image()
	r.root()
	r.maxCertTTL()
	if err := errors.Join(r.errs...); err != nil {
		return Settings{}, err
	}
	return r.found, nil
}

// reader turns a ControlPlane into Settings.
type reader struct {
	ControlPlane
	values injectorValues
	mesh   meshConfig
	found  Settings
	errs   []error
}

func (r *reader) parseInjector() error {
	if r.Injector == nil {
		return nil
	}
	if _, ok := r.Injector.Data[keyValues]; !ok {
		return fmt.Errorf("%s: missing", at(r.Injector, keyValues))
	}
	return decode(r.Injector, keyValues, &r.values)
}

func (r *reader) parseMesh() error {
	// Without the key, istiod runs with its built-in MeshConfig, so this is no
	// error.
	if r.MeshConfig == nil || r.MeshConfig.Data[keyMesh] == "" {
		return nil
	}
	return decode(r.MeshConfig, keyMesh, &r.mesh)
}

// sourced is a value and where it was found.
type sourced struct{ value, source string }

func (r *reader) fromValues(path, value string) sourced {
	if r.Injector == nil {
		return sourced{}
	}
	return sourced{value, at(r.Injector, keyValues+"."+path)}
}

func (r *reader) fromMesh(path, value string) sourced {
	if r.MeshConfig == nil {
		return sourced{}
	}
	return sourced{value, at(r.MeshConfig, keyMesh+"."+path)}
}

func (r *reader) fromMetadata(env, value string) sourced {
	return r.fromMesh("defaultConfig.proxyMetadata."+env, value)
}

// fromIstiod returns an environment variable of istiod.
func (r *reader) fromIstiod(env string) sourced {
	if r.Istiod == nil {
		return sourced{}
	}
	return sourced{environment(r.Istiod)[env], fmt.Sprintf("Deployment %s/%s %s", r.Istiod.Namespace, r.Istiod.Name, env)}
}

// set gives the field its first candidate that is not empty, and checks it.
func (r *reader) set(name string, candidates ...sourced) {
	fields := textFields()
	field := fields[slices.IndexFunc(fields, func(f textField) bool { return f.name == name })]
	for _, c := range candidates {
		if c.value == "" {
			continue
		}
		var alone patches.Mesh
		*field.in(&alone) = c.value
		if err := alone.Validate(); err != nil {
			r.errs = append(r.errs, fmt.Errorf("%s: %w", c.source, err))
			return
		}
		*field.in(&r.found.Mesh) = c.value
		r.found.Sources[name] = c.source
		return
	}
}

func (r *reader) warn(format string, args ...any) {
	r.found.Warnings = append(r.found.Warnings, fmt.Sprintf(format, args...))
}
