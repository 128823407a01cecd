package publish

import (
	"maps"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/isthmus-mesh/isthmus/internal/certs"
	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

// rootKeys are the keys of a Secret that hold the roots: Emissary reads
// root-cert.pem, every other edge ca.crt.
func rootKeys() []string { return []string{corev1.ServiceAccountRootCAKey, "root-cert.pem"} }

// certificateAnnotations are the annotations that repeat what a certificate says.
func certificateAnnotations(id spiffeid.ID, b *certs.Bundle) map[string]string {
	return map[string]string{
		policy.SPIFFEIDKey:  id.String(),
		policy.SerialKey:    b.Serial(),
		policy.NotBeforeKey: formatTime(b.NotBefore()),
		policy.NotAfterKey:  formatTime(b.NotAfter()),
	}
}

func formatTime(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// createVersion is a resourceVersion that no Secret has: etcd counts from 1, and
// its first write is 2. An apply with it creates a Secret that is absent and
// conflicts with one that exists. Without it, the second of two first applies by
// the same field manager overwrites the first one silently (seen with Kubernetes
// 1.36; resourceVersion 0 means none).
const createVersion = "1"

// desiredSecret is the Secret to apply: everything in one apply. It carries the
// resourceVersion that was observed, or createVersion. The UID keeps an apply from
// creating a Secret that was deleted since.
func (o Observation) desiredSecret(d Decision, now time.Time) *corev1.Secret {
	b := d.Bundle
	annotations := certificateAnnotations(b.ID(), b)
	annotations[policy.RenewAfterKey] = formatTime(d.RenewAfter)
	annotations[policy.SourceKey] = o.target.Source
	if d.keepsCertificate() && policy.Source(o.Source).Known() {
		annotations[policy.SourceKey] = o.Source // the certificate's, which stays
	}
	annotations[policy.PublishedAtKey] = formatTime(now)
	secret := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: o.target.Namespace, Name: o.target.Name, ResourceVersion: createVersion,
			Labels: o.desiredLabels(), Annotations: annotations,
		},
		Type: corev1.SecretTypeTLS,
		Data: map[string][]byte{corev1.TLSCertKey: b.Chain(), corev1.TLSPrivateKeyKey: b.Key()},
	}
	for _, key := range rootKeys() {
		secret.Data[key] = b.Roots()
	}
	if o.secret != nil {
		secret.UID, secret.ResourceVersion = o.secret.UID, o.secret.ResourceVersion
		secret.Type = o.secret.Type // the type of a Secret is immutable
	}
	return secret
}

// desiredLabels are the labels of the Secret to apply.
func (o Observation) desiredLabels() map[string]string {
	labels := map[string]string{}
	if o.target.Labels == nil && o.secret != nil {
		maps.Copy(labels, o.secret.Labels)
	}
	maps.Copy(labels, o.target.Labels)
	labels[policy.ManagedByLabel] = policy.ManagedBy
	return labels
}

// PublishedAt is when a Secret was last written; zero when it does not say so.
func PublishedAt(secret *corev1.Secret) time.Time { return timeIn(secret, policy.PublishedAtKey) }

// timeIn reads an annotation with a time; zero when there is none.
func timeIn(secret *corev1.Secret, key string) time.Time {
	t, err := time.Parse(time.RFC3339, secret.Annotations[key])
	if err != nil {
		return time.Time{}
	}
	return t
}
