package publish

import (
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/isthmus-mesh/isthmus/internal/certs"
	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

// rootKeys are where the roots stand in a Secret: Emissary reads root-cert.pem,
// the rest of the world ca.crt.
func rootKeys() []string { return []string{corev1.ServiceAccountRootCAKey, "root-cert.pem"} }

// facts are the annotations that repeat what a certificate says.
func facts(id spiffeid.ID, b *certs.Bundle) map[string]string {
	return map[string]string{
		policy.SPIFFEIDKey:  id.String(),
		policy.SerialKey:    b.Serial(),
		policy.NotBeforeKey: stamp(b.NotBefore()),
		policy.NotAfterKey:  stamp(b.NotAfter()),
	}
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// createVersion is a resourceVersion that no Secret has: etcd counts from 1, and
// its first write is 2. An apply that carries it creates a Secret that is absent
// and conflicts with one that is there, whereas without it the second of two
// first applies by one manager would overwrite the first in silence (seen with
// Kubernetes 1.36; ResourceVersion 0 means none).
const createVersion = "1"

// compose writes down the Secret as it is to be: everything in one apply. It
// carries the version that was judged, or createVersion. The UID beside it keeps
// an apply from creating anew what was deleted since.
func (s Standing) compose(b *certs.Bundle, renew time.Time) *corev1.Secret {
	annotations := facts(s.target.ID, b)
	annotations[policy.RenewAfterKey] = stamp(renew)
	annotations[policy.SourceKey] = s.target.Source
	out := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: s.target.Namespace, Name: s.target.Name, ResourceVersion: createVersion,
			Labels: map[string]string{policy.ManagedByLabel: policy.ManagedBy}, Annotations: annotations,
		},
		Type: corev1.SecretTypeTLS,
		Data: map[string][]byte{corev1.TLSCertKey: b.Chain(), corev1.TLSPrivateKeyKey: b.Key()},
	}
	for _, key := range rootKeys() {
		out.Data[key] = b.Roots()
	}
	if s.secret != nil {
		out.UID, out.ResourceVersion = s.secret.UID, s.secret.ResourceVersion
		out.Type = s.secret.Type // nobody can change it
	}
	return out
}
