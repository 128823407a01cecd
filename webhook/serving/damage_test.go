package serving

import (
	"time"

	corev1 "k8s.io/api/core/v1"
)

// damage is an edit after which the Secret is no longer what a Rotator wrote.
type damage struct {
	name  string
	apply func(*corev1.Secret)
}

// damages are all kinds of damage that tests do to the Secret.
func damages() []damage {
	newOther := func() *authority {
		other, err := newAuthority(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), 10_000*time.Hour)
		if err != nil {
			panic(err)
		}
		return other
	}
	return []damage{
		{"emptied", func(s *corev1.Secret) { s.Data, s.Annotations = nil, nil }},
		{"signing CA gone", func(s *corev1.Secret) {
			delete(s.Data, corev1.TLSCertKey)
			delete(s.Data, corev1.TLSPrivateKeyKey)
		}},
		{"key of another CA", func(s *corev1.Secret) {
			s.Data[corev1.TLSPrivateKeyKey] = newOther().keyPEM
		}},
		{"key is not PEM", func(s *corev1.Secret) { s.Data[corev1.TLSPrivateKeyKey] = []byte("nonsense") }},
		{"certificate is not PEM", func(s *corev1.Secret) { s.Data[corev1.TLSCertKey] = []byte("nonsense") }},
		{"bundle is not PEM", func(s *corev1.Secret) { s.Data[BundleKey] = []byte("nonsense") }},
		{"bundle gone", func(s *corev1.Secret) { delete(s.Data, BundleKey) }},
		{"next is nonsense", func(s *corev1.Secret) { s.Data[NextCertKey] = []byte("nonsense") }},
		{"phase is nonsense", func(s *corev1.Secret) { s.Annotations[PhaseAnnotation] = "nonsense" }},
		{"since is nonsense", func(s *corev1.Secret) { s.Annotations[PhaseSinceAnnotation] = "yesterday" }},
		{"since is in the far future", func(s *corev1.Secret) { s.Annotations[PhaseSinceAnnotation] = "2030-01-01T00:00:00Z" }},
		{"annotations gone", func(s *corev1.Secret) { s.Annotations = nil }},
		{"another CA written by hand", func(s *corev1.Secret) {
			other := newOther()
			s.Data[corev1.TLSCertKey], s.Data[corev1.TLSPrivateKeyKey], s.Data[BundleKey] = other.certPEM, other.keyPEM, other.certPEM
		}},
	}
}
