package inject

import (
	"fmt"
	"maps"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/isthmus-mesh/isthmus/patches"
	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

// maxSelectorBytes is the longest selector that is parsed.
const maxSelectorBytes = 4 << 10

// maxRepeated is how many bytes of a selector are repeated in a message.
const maxRepeated = 128

// HiddenCode is the code of the warning about an edge that does not see what the
// controller keeps for it.
const HiddenCode = "hidden-from-edge"

// warnHidden warns if a setting of the edge hides from it what the controller keeps.
func (s *subject) warnHidden() {
	if why, _ := s.noSecretBecause(); why != "" || !s.options.Mode.HasCertificate() {
		return // nothing is kept
	}
	variables, edge := s.profile.Secret.Selectors, &s.Pod.Spec.Containers[s.edge]
	read := func(name string) Variable {
		if name == "" {
			return Variable{}
		}
		return ReadVariable(s.Pod, s.Namespace.Name, edge, name)
	}
	s.warnHiddenBy(variables.Labels, read(variables.Labels), s.labelsHide, "add labels that it selects to the chart's value secretLabels, or change it")
	s.warnHiddenBy(variables.Fields, read(variables.Fields), s.fieldsHide, "change it so that it selects them")
	if own := read(variables.Namespace); read(variables.SingleNamespace).Value != "" {
		s.warnHiddenBy(variables.Namespace, own, func(ns string) (bool, error) { return ns != s.Namespace.Name, nil },
			fmt.Sprintf("%s limits the edge to that namespace; set it to the pod's own, by fieldRef metadata.namespace, or remove %s", variables.SingleNamespace, variables.SingleNamespace))
	}
}

// warnHiddenBy warns if the value of a variable hides the objects.
func (s *subject) warnHiddenBy(name string, v Variable, hides func(value string) (bool, error), remedy string) {
	if v.IsUncertain || v.Origin == "" && v.Value == "" {
		return
	}
	name, kept := name+" of container "+s.Pod.Spec.Containers[s.edge].Name, s.keptObjects()
	if v.Origin != "" {
		s.warn(HiddenCode, "%s comes from %s, so it is unknown whether the edge sees %s; check that it does", name, v.Origin, kept)
		return
	}
	switch isHidden, err := hides(v.Value); {
	case err != nil:
		s.warn(HiddenCode, "%s is %q, which cannot be read as a selector (%v), so it is unknown whether the edge sees %s; correct it", name, policy.Clip(v.Value, maxRepeated), err, kept)
	case isHidden:
		s.warn(HiddenCode, "%s is %q, so the edge does not see %s in namespace %s; %s", name, policy.Clip(v.Value, maxRepeated), kept, s.Namespace.Name, remedy)
	}
}

// keptObjects names what the controller keeps for the edge.
func (s *subject) keptObjects() string {
	context := s.options.TLSContext
	if context == "" {
		context = policy.DefaultTLSContext
	}
	secret := s.options.SecretName
	if !s.profile.Secret.Has(patches.FormRoots) {
		return fmt.Sprintf("Secret %s and TLSContext %s", secret, context)
	}
	return fmt.Sprintf("Secret %s, Secret %s and TLSContext %s", secret, secret+policy.RootsSuffix, context)
}

// labelsHide reports whether a label selector hides an object that the controller
// keeps.
func (s *subject) labelsHide(selector string) (bool, error) {
	if len(selector) > maxSelectorBytes {
		return false, fmt.Errorf("it has %d bytes; at most %d are read", len(selector), maxSelectorBytes)
	}
	parsed, err := labels.Parse(selector)
	if err != nil {
		return false, err
	}
	return !parsed.Matches(labels.Set(ObjectLabels(s.engine.settings.SecretLabels))), nil
}

// fieldsHide reports whether a field selector hides an object that the controller
// keeps.
func (s *subject) fieldsHide(selector string) (bool, error) {
	if len(selector) > maxSelectorBytes {
		return false, fmt.Errorf("it has %d bytes; at most %d are read", len(selector), maxSelectorBytes)
	}
	parsed, err := fields.ParseSelector(selector)
	if err != nil {
		return false, err
	}
	kept := map[string]corev1.SecretType{s.options.SecretName: corev1.SecretTypeTLS}
	if s.profile.Secret.Has(patches.FormRoots) {
		kept[s.options.SecretName+policy.RootsSuffix] = corev1.SecretTypeOpaque
	}
	for name, kind := range kept {
		if !parsed.Matches(fields.Set{"metadata.namespace": s.Namespace.Name, "metadata.name": name, "type": string(kind)}) {
			return true, nil
		}
	}
	return false, nil
}

// ObjectLabels are the labels of the Secrets and TLSContexts that the controller keeps.
func ObjectLabels(configured map[string]string) map[string]string {
	all := map[string]string{policy.ManagedByLabel: policy.ManagedBy}
	maps.Copy(all, configured)
	return all
}
