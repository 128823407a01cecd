package inject

import (
	"github.com/isthmus-mesh/isthmus/patches"
	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

// planSecret plans mode secret: the controller keeps the Secret, and the pod gets the
// label that the controller looks for. An edge that reads files gets the Secret as a
// volume. An edge that reads Secrets through the API needs nothing else.
func (s *subject) planSecret() (p plan, message string) {
	p.mounted = true
	p.params = s.secretParams("")
	if s.readsFiles() {
		location, message := s.locateCerts()
		if message != "" {
			return p, message
		}
		p.mounted = location.mounted
		p.params = s.secretParams(location.dir)
		if message := s.checkNames(&p); message != "" {
			return p, message
		}
	}
	if message := s.planMetadata(&p); message != "" {
		return p, message
	}
	s.planEnv(&p)
	return p, ""
}

// secretParams returns the parameters of mode secret, which depends on no mesh
// settings. An empty certDir mounts nothing.
func (s *subject) secretParams(certDir string) patches.Params {
	p := patches.Params{NoSidecar: true, CertDir: certDir}
	if certDir != "" {
		p.SecretName = s.options.SecretName
	}
	return p
}

// readsFiles reports whether the edge reads its certificate from a directory.
func (s *subject) readsFiles() bool {
	return s.options.Delivery == policy.DeliveryFiles || s.options.Mode == policy.Secret && !s.profile.ReadsSecret
}
