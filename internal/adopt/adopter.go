package adopt

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/isthmus-mesh/isthmus/webhook/inject"
	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

// adopter collects how to turn one pod into a plain one.
type adopter struct {
	pod     *corev1.Pod
	edge    int
	options policy.Options
	choices Options

	// found says how the pod is integrated. It is empty if the pod is not.
	found string
	// usesInjector is true if Istio's injector adds the sidecar. Mode istio then
	// replaces the integration.
	usesInjector bool
	// sidecar is the manual sidecar, or nil.
	sidecar *corev1.Container
	// volume holds the certificates. It is empty if there is no such volume.
	volume string
	// dir is where the edge finds the certificates.
	dir string

	newAnnotations    map[string]string
	editedAnnotations map[string]string
	dropAnnotations   []string
	dropLabels        []string
	dropVolumes       []string
	dropEnv           []string
	dropMounts        []int // indexes of the edge's mounts
	warnings          []string
	errs              []error
}

// addError adds an error about a field that cannot be adopted. The text includes the way
// out.
func (a *adopter) addError(field, format string, args ...any) {
	a.errs = append(a.errs, fmt.Errorf("%s: %s", field, fmt.Sprintf(format, args...)))
}

func (a *adopter) warn(format string, args ...any) {
	a.warnings = append(a.warnings, fmt.Sprintf(format, args...))
}

// addAnnotation adds an annotation that replaces a setting of the integration. It is an
// error if the pod has the annotation with another value.
func (a *adopter) addAnnotation(key, value, setting string) {
	if current, ok := a.pod.Annotations[key]; ok && current != value {
		a.addError("metadata.annotations["+key+"]", "it is %q, and %s says %q; make them agree", current, setting, value)
		return
	}
	a.newAnnotations[key] = value
}

// plan collects what is removed and what is added.
func (a *adopter) plan() {
	a.newAnnotations, a.editedAnnotations = map[string]string{}, map[string]string{}
	a.sidecar = findManualSidecar(a.pod, a.edge)
	if !a.recognise() {
		return
	}
	a.locateCerts()
	if a.sidecar != nil {
		a.adoptSidecar()
	}
	a.adoptAnnotations()
	a.adoptCertsVolume()
	a.adoptEdge()
	a.addKeys()
}

// addKeys adds the annotations of Isthmus that replace the integration.
func (a *adopter) addKeys() {
	mode := policy.Sidecar
	if a.usesInjector {
		mode = policy.Istio
	}
	if a.options.Mode != mode || a.usesInjector {
		a.addAnnotation(policy.ModeKey, string(mode), "the integration by hand")
	}
	if a.dir != "" && a.dir != a.options.CertDir {
		a.addAnnotation(policy.CertDirKey, a.dir, "the certificates' directory")
	}
	if a.choices.ByNamespace {
		return
	}
	if a.pod.Labels[policy.InjectKey] != "true" {
		a.addAnnotation(policy.InjectKey, "true", "adopting it")
	}
}

// findManualSidecar finds the sidecar that is part of an integration by hand: the
// container istio-proxy, or one of another name that runs Istio's agent for certificates.
// It returns nil if there is none.
func findManualSidecar(pod *corev1.Pod, edge int) *corev1.Container {
	if sidecar := inject.FindSidecar(pod); sidecar != nil {
		return sidecar
	}
	var found *corev1.Container
	eachContainer(pod, func(list string, i int, c *corev1.Container) {
		isEdge := list == "containers" && i == edge
		if found == nil && !isEdge && inject.WritesCertificates(c) {
			found = c
		}
	})
	return found
}

// edgeContainer returns the edge container and its path.
func (a *adopter) edgeContainer() (*corev1.Container, string) {
	return &a.pod.Spec.Containers[a.edge], fmt.Sprintf("spec.containers[%d]", a.edge)
}

// containerPosition returns the list and the index of a container.
func (a *adopter) containerPosition(c *corev1.Container) (list string, index int) {
	eachContainer(a.pod, func(l string, i int, other *corev1.Container) {
		if other == c {
			list, index = l, i
		}
	})
	return list, index
}

// otherUsers names the containers that use a volume, without edge and sidecar.
func (a *adopter) otherUsers(volume string) []string {
	var names []string
	edge, _ := a.edgeContainer()
	eachContainer(a.pod, func(list string, i int, c *corev1.Container) {
		if c == edge || c == a.sidecar {
			return
		}
		uses := inject.FindMount(c, volume) != nil || slices.ContainsFunc(c.VolumeDevices, func(d corev1.VolumeDevice) bool { return d.Name == volume })
		if uses {
			names = append(names, fmt.Sprintf("spec.%s[%d] (%s)", list, i, c.Name))
		}
	})
	return names
}

// joinAnd joins a list for a sentence.
func joinAnd(names []string) string { return strings.Join(names, " and ") }
