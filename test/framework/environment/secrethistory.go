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
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/isthmus-mesh/isthmus/internal/certs"
	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

// Ledger follows a Secret and judges every version that a watch shows.
type Ledger struct {
	world           *World
	namespace, name string
	id              spiffeid.ID

	mu      sync.Mutex
	current *corev1.Secret
	entries []Entry
	wrong   []string
}

// Entry is one version of the Secret.
type Entry struct {
	Serial string
	Seen   time.Time
	// Due is when it is to be replaced, as the annotation says.
	Due time.Time
	// Gone is true where the Secret was deleted.
	Gone bool
}

// Identity is what istiod gives a service account.
func Identity(t testing.TB, namespace, account string) spiffeid.ID {
	t.Helper()
	id, err := certs.Identity("cluster.local", namespace, account)
	require.NoError(t, err)
	return id
}

// Follow starts a Ledger of istio-certs that ends with the test. From the first
// version on every one has to be a bundle of this identity.
func (w *World) Follow(t testing.TB, namespace string, id spiffeid.ID) *Ledger {
	t.Helper()
	l := &Ledger{world: w, namespace: namespace, name: "istio-certs", id: id}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	t.Cleanup(func() { cancel(); <-done })
	go func() {
		defer close(done)
		l.run(ctx)
	}()
	return l
}

// run watches, and begins anew where the API server went away: what was written
// meanwhile is then replayed from the version that was last seen.
func (l *Ledger) run(ctx context.Context) {
	version := ""
	for ctx.Err() == nil {
		w, err := l.world.Kube.CoreV1().Secrets(l.namespace).Watch(ctx, metav1.ListOptions{
			FieldSelector: "metadata.name=" + l.name, ResourceVersion: version,
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
			if !ok { // the version is too old
				version = ""
				break
			}
			version = secret.ResourceVersion
			l.enter(e.Type, secret)
		}
		w.Stop()
	}
}

func (l *Ledger) enter(kind watch.EventType, secret *corev1.Secret) {
	entry := Entry{Seen: time.Now(), Serial: secret.Annotations[policy.SerialKey], Gone: kind == watch.Deleted}
	var err error
	if !entry.Gone {
		err = Judge(secret, l.id)
		entry.Due, _ = due(secret) // else it is wrong
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.entries = append(l.entries, entry)
	if err != nil {
		l.wrong = append(l.wrong, fmt.Sprintf("version %s (serial %s): %v", secret.ResourceVersion, entry.Serial, err))
	}
	if !entry.Gone {
		l.current = secret
	}
}

// due is when the certificate in a Secret is to be replaced, as the annotation says.
func due(secret *corev1.Secret) (time.Time, error) {
	return time.Parse(time.RFC3339, secret.Annotations[policy.RenewAfterKey])
}

// Judge checks one version of a Secret on its own: key and chain are a pair by the standard
// library, the chain leads to the roots beside it, and the annotations say what
// is in it.
func Judge(secret *corev1.Secret, id spiffeid.ID) error {
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

// Current is the newest version; nil while there was none.
func (l *Ledger) Current() *corev1.Secret {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.current
}

// Entries lists every version so far.
func (l *Ledger) Entries() []Entry {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.entries)
}

// Serials lists the certificates so far, each once, in the order they came.
func (l *Ledger) Serials() []string {
	var serials []string
	for _, e := range l.Entries() {
		if !e.Gone && !slices.Contains(serials, e.Serial) {
			serials = append(serials, e.Serial)
		}
	}
	return serials
}

// Wrong lists the versions that were no bundle.
func (l *Ledger) Wrong() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.wrong)
}

// Needless lists what nothing asked for: that the Secret was deleted, a certificate
// that has stood there before, and another one before the last was due.
func (l *Ledger) Needless() []string {
	var needless []string
	var last Entry
	serials := map[string]bool{}
	for i, e := range l.Entries() {
		switch {
		case e.Gone:
			needless = append(needless, fmt.Sprintf("version %d: the Secret was deleted", i))
		case serials[e.Serial]:
			needless = append(needless, fmt.Sprintf("version %d: serial %s has stood there before", i, e.Serial))
		case e.Seen.Before(last.Due):
			needless = append(needless, fmt.Sprintf("version %d: serial %s was not due for %s", i, last.Serial, last.Due.Sub(e.Seen)))
		}
		last, serials[e.Serial] = e, true
	}
	return needless
}

// AwaitSerials waits until there were n certificates.
func (l *Ledger) AwaitSerials(t testing.TB, n int, within time.Duration) {
	t.Helper()
	require.Eventually(t, func() bool { return len(l.Serials()) >= n }, within, 50*time.Millisecond,
		"%d certificates in secret %s/%s", n, l.namespace, l.name)
}
