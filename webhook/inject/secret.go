package inject

import (
	"github.com/isthmus-mesh/isthmus/patches"
	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

// planSecret plans mode secret: the controller keeps the Secret, and the pod
// gets the marker that the controller looks for. An edge that reads files gets
// the Secret as a volume; one that reads Secrets through the API needs nothing.
func (s *subject) planSecret() (p plan, message string) {
	p.mounted = true
	p.params = s.secretParams("")
	if s.readsFiles() {
		certDir, _, mounted, message := s.certDir()
		if message != "" {
			return p, message
		}
		p.mounted = mounted
		p.params = s.secretParams(certDir)
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

// secretParams are those of mode secret: of the mesh it needs nothing. An empty
// certDir mounts nothing.
func (s *subject) secretParams(certDir string) patches.Params {
	p := patches.Params{NoSidecar: true, CertDir: certDir}
	if certDir != "" {
		p.SecretName = s.options.SecretName
	}
	return p
}

// readsFiles says whether the edge takes its certificate from a directory.
func (s *subject) readsFiles() bool {
	return s.options.Delivery == policy.DeliveryFiles || s.options.Mode == policy.Secret && !s.profile.ReadsSecret
}
