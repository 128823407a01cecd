package inject

import (
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/isthmus-mesh/isthmus/patches"
	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

// plan is what will be added to the pod and changed in it.
type plan struct {
	params patches.Params
	// mounted is true if the edge mounts the certificates already, or needs no mount.
	mounted     bool
	env         []corev1.EnvVar
	labels      []keyValue
	annotations []keyValue
	// replacedAnnotations and replacedLabels get another value.
	replacedAnnotations, replacedLabels []replacement

	pullSecrets []string
}

type keyValue struct{ key, value string }

type replacement struct{ key, was, value string }

// plan plans the injection. If something in the pod conflicts with it, message
// describes the first conflict and reason is its code.
func (s *subject) plan() (p plan, reason policy.Reason, message string) {
	switch s.options.Mode {
	case policy.Secret:
		p, message = s.planSecret()
		return p, policy.Conflict, message
	case policy.Ambient:
		p, message = s.planAmbient()
		return p, policy.Conflict, message
	case policy.Istio:
		return s.planIstio()
	default:
		return s.planSidecar()
	}
}

// planEnv adds the profile's variables to the edge. A variable that the user has set
// stays.
func (s *subject) planEnv(p *plan) {
	edge := &s.Pod.Spec.Containers[s.edge]
	files := s.readsFiles()
	for _, e := range s.profile.Env {
		if e.When == patches.WhenFiles && !files || e.When == patches.WhenEnvoy && !s.options.Envoy {
			continue
		}
		if FindEnv(edge, e.Name) != nil {
			continue
		}
		p.env = append(p.env, corev1.EnvVar{Name: e.Name, Value: strings.ReplaceAll(e.Value, "${certDir}", p.params.CertDir)})
		if !e.Reads(edge.Image) {
			s.warn("edge-too-old", "%s reads %s from version %s on; this image (%s) does not, so configure the certificates in %s by hand, or upgrade", s.profile.Name, e.Name, e.Since, edge.Image, p.params.CertDir)
		}
	}
	if files && !s.profile.Files.Reloads(edge.Image) {
		text := "%s in this version (%s) notices a rotated file only when something else makes it reconfigure"
		if s.options.Mode != policy.Secret {
			text += "; annotation " + policy.DeliveryKey + ": secret avoids that"
		}
		s.warn("files-not-reloaded", text, s.profile.Name, edge.Image)
	}
}

// planPullSecrets appends the operator's pull secrets. It does not in a pod template of
// a file without pull secrets: the API server gives a pod the secrets of its service
// account only if the pod has none.
func (s *subject) planPullSecrets(p *plan) {
	for _, name := range s.engine.settings.ImagePullSecrets {
		if slices.ContainsFunc(s.Pod.Spec.ImagePullSecrets, func(r corev1.LocalObjectReference) bool { return r.Name == name }) {
			continue
		}
		if s.Template && len(s.Pod.Spec.ImagePullSecrets) == 0 {
			s.warn("pull-secrets-left-out", "imagePullSecrets %s are not added to a template that has none, because they would replace those of its service account; add them to the service account",
				strings.Join(s.engine.settings.ImagePullSecrets, ", "))
			return
		}
		p.pullSecrets = append(p.pullSecrets, name)
	}
}
