package environment

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/isthmus-mesh/isthmus/internal/certs"
	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

// SecretHistory watches a Secret, and records and validates every version of it. A
// version that differs from the last one by the annotation isthmus.dev/nudge alone is
// validated and not recorded: it tells the edge to read again what is there.
type SecretHistory struct {
	env             *Environment
	namespace, name string
	id              spiffeid.ID

	mu       sync.Mutex
	current  *corev1.Secret
	written  string
	versions []SecretVersion
	invalid  []string
}

// SecretVersion is one version of the Secret.
type SecretVersion struct {
	// Serial is the serial number of the certificate, from the annotation.
	Serial string
	// Seen is when the watch delivered this version.
	Seen time.Time
	// Due is when the certificate is to be replaced, from the annotation.
	Due time.Time
	// Deleted is true if the Secret was deleted.
	Deleted bool
}

// Identity returns the SPIFFE ID that istiod issues to a service account.
func Identity(t testing.TB, namespace, account string) spiffeid.ID {
	t.Helper()
	id, err := certs.Identity("cluster.local", namespace, account)
	require.NoError(t, err)
	return id
}

// WatchSecret starts a SecretHistory of the Secret istio-certs that runs until the test
// ends. Every version must be a valid bundle of this identity.
func (env *Environment) WatchSecret(t testing.TB, namespace string, id spiffeid.ID) *SecretHistory {
	t.Helper()
	h := &SecretHistory{env: env, namespace: namespace, name: "istio-certs", id: id}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	t.Cleanup(func() { cancel(); <-done })
	go func() {
		defer close(done)
		h.run(ctx)
	}()
	return h
}

// run watches the Secret. After a disconnect it resumes the watch at the last version
// seen, so that it misses no write.
func (h *SecretHistory) run(ctx context.Context) {
	version := ""
	for ctx.Err() == nil {
		w, err := h.env.Kube.CoreV1().Secrets(h.namespace).Watch(ctx, metav1.ListOptions{
			FieldSelector: "metadata.name=" + h.name, ResourceVersion: version,
		})
		if err != nil {
			select {
			case <-ctx.Done():
			case <-time.After(100 * time.Millisecond):
			}
			continue
		}
		for e := range w.ResultChan() {
			secret, ok := e.Object.(*corev1.Secret)
			if !ok { // an error: the resource version is too old
				version = ""
				break
			}
			version = secret.ResourceVersion
			h.record(e.Type, secret)
		}
		w.Stop()
	}
}

func (h *SecretHistory) record(kind watch.EventType, secret *corev1.Secret) {
	version := SecretVersion{Seen: time.Now(), Serial: secret.Annotations[policy.SerialKey], Deleted: kind == watch.Deleted}
	var err error
	if !version.Deleted {
		err = ValidateSecret(secret, h.id)
		version.Due, _ = due(secret) // ValidateSecret reports its error
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if version.Deleted || h.current == nil || !isNudge(h.current, secret) {
		h.versions = append(h.versions, version)
		h.written = secret.ResourceVersion
	}
	if err != nil {
		h.invalid = append(h.invalid, fmt.Sprintf("version %s (serial %s): %v", secret.ResourceVersion, version.Serial, err))
	}
	if !version.Deleted {
		h.current = secret
	}
}

// isNudge reports whether two versions of a Secret differ by the annotation
// isthmus.dev/nudge, and by nothing else that somebody wrote.
func isNudge(before, after *corev1.Secret) bool {
	content := func(secret *corev1.Secret) *corev1.Secret {
		c := secret.DeepCopy()
		c.ResourceVersion, c.ManagedFields = "", nil
		delete(c.Annotations, policy.NudgeKey)
		return c
	}
	return before.Annotations[policy.NudgeKey] != after.Annotations[policy.NudgeKey] &&
		apiequality.Semantic.DeepEqual(content(before), content(after))
}

// due returns when the certificate in a Secret is to be replaced, from the annotation.
func due(secret *corev1.Secret) (time.Time, error) {
	return time.Parse(time.RFC3339, secret.Annotations[policy.RenewAfterKey])
}

// ValidateSecret checks one version of a Secret: the key belongs to the certificate, the
// chain verifies to the roots in the Secret, and the annotations match its contents.
func ValidateSecret(secret *corev1.Secret, id spiffeid.ID) error {
	if _, err := tls.X509KeyPair(secret.Data["tls.crt"], secret.Data["tls.key"]); err != nil {
		return err
	}
	roots, err := certs.ParseCertificates(secret.Data["ca.crt"])
	if err != nil {
		return err
	}
	m, err := certs.FromSecret(secret.Data)
	if err != nil {
		return err
	}
	b, err := certs.New(m, certs.Want{ID: id, Roots: roots, Now: time.Now()})
	switch {
	case err != nil:
		return err
	case !bytes.Equal(secret.Data["ca.crt"], secret.Data["root-cert.pem"]):
		return fmt.Errorf("ca.crt and root-cert.pem differ")
	case secret.Annotations[policy.SerialKey] != b.Serial():
		return fmt.Errorf("the annotation says serial %s", secret.Annotations[policy.SerialKey])
	case secret.Annotations[policy.SPIFFEIDKey] != id.String():
		return fmt.Errorf("the annotation says %s", secret.Annotations[policy.SPIFFEIDKey])
	}
	_, err = due(secret)
	return err
}

// Current returns the newest version of the Secret, or nil if there was none yet.
func (h *SecretHistory) Current() *corev1.Secret {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.current
}

// Written returns the resource version of the last change that was no nudge, or "" if
// there was none yet.
func (h *SecretHistory) Written() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.written
}

// Versions returns every version so far.
func (h *SecretHistory) Versions() []SecretVersion {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.versions)
}

// Serials returns the serial numbers of the certificates so far, each once, in order.
func (h *SecretHistory) Serials() []string {
	var serials []string
	for _, e := range h.Versions() {
		if !e.Deleted && !slices.Contains(serials, e.Serial) {
			serials = append(serials, e.Serial)
		}
	}
	return serials
}

// InvalidVersions returns the errors of the versions that are not valid bundles.
func (h *SecretHistory) InvalidVersions() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.invalid)
}

// UnneededWrites returns the changes that had no reason: a deletion of the Secret, a
// certificate that was there before, and a new one before the last one was due.
func (h *SecretHistory) UnneededWrites() []string {
	var unneeded []string
	var last SecretVersion
	serials := map[string]bool{}
	for i, e := range h.Versions() {
		switch {
		case e.Deleted:
			unneeded = append(unneeded, fmt.Sprintf("version %d: the Secret was deleted", i))
		case serials[e.Serial]:
			unneeded = append(unneeded, fmt.Sprintf("version %d: serial %s was there before", i, e.Serial))
		case e.Seen.Before(last.Due):
			unneeded = append(unneeded, fmt.Sprintf("version %d: serial %s was not due for %s", i, last.Serial, last.Due.Sub(e.Seen)))
		}
		last, serials[e.Serial] = e, true
	}
	return unneeded
}

// AwaitSerials waits until the Secret has had n certificates.
func (h *SecretHistory) AwaitSerials(t testing.TB, n int, within time.Duration) {
	t.Helper()
	require.Eventually(t, func() bool { return len(h.Serials()) >= n }, within, 50*time.Millisecond,
		"%d certificates in secret %s/%s", n, h.namespace, h.name)
}
