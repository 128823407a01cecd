package controller

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/isthmus-mesh/isthmus/internal/certs"
	"github.com/isthmus-mesh/isthmus/internal/publish"
	"github.com/isthmus-mesh/isthmus/patches"
	"github.com/isthmus-mesh/isthmus/test/framework/certtest"
	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

// noon is when decisions are made.
var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// interval is the time between two checks of a Secret.
const interval = 30 * time.Second

// middle is a source of random numbers that adds no jitter.
func middle() float64 { return 0.5 }

// sequence returns the numbers one after the other, and then again.
func sequence(numbers ...float64) func() float64 {
	next := 0
	return func() float64 {
		next++
		return numbers[(next-1)%len(numbers)]
	}
}

// authority is a certificate authority of the mesh.
type authority struct{ *certtest.Pair }

func newAuthority(t testing.TB) authority {
	return authority{certtest.NewAuthority(t, certtest.Validity(noon.Add(-1000*time.Hour), noon.Add(1000*time.Hour)))}
}

func idOf(account string) spiffeid.ID {
	return spiffeid.RequireFromString("spiffe://cluster.local/ns/edge/sa/" + account)
}

// bundle is one of a service account in namespace edge, dated back as Istio's CA
// does.
func (a authority) bundle(t testing.TB, account string, issued, until time.Time) *certs.Bundle {
	t.Helper()
	leaf := a.SPIFFELeaf(t, idOf(account).String(), certtest.Validity(issued.Add(-2*time.Minute), until))
	b, err := certs.New(certs.Material{Key: leaf.KeyPEM, Chain: leaf.ChainPEM}, certs.Want{ID: idOf(account), Roots: a.roots(), Now: issued})
	require.NoError(t, err)
	return b
}

func (a authority) roots() []*x509.Certificate { return []*x509.Certificate{a.Certificate} }

// secretOf is the Secret edge/istio-certs after the bundle was published.
func (a authority) secretOf(t testing.TB, b *certs.Bundle, source policy.Source, at time.Time) *corev1.Secret {
	t.Helper()
	s := &memory{}
	p := publish.Publisher{Secrets: s, Now: func() time.Time { return at }}
	target := publish.Target{Namespace: "edge", Name: "istio-certs", ID: b.ID(), Source: string(source), Roots: a.roots()}
	outcome, err := p.Publish(t.Context(), target, b, publish.WhenNewer)
	require.NoError(t, err)
	require.Equal(t, publish.Published, outcome.Result)
	return s.secret
}

// memory is an API server with one Secret, and the Secret of its roots.
type memory struct {
	secret, roots *corev1.Secret
	version       int
	// applies and rootsApplies count the writes.
	applies, rootsApplies int
	// annotations counts the annotations that were written alone.
	annotations int
	fail        error
}

// of returns the Secret of that name.
func (m *memory) of(name string) **corev1.Secret {
	if strings.HasSuffix(name, policy.RootsSuffix) {
		return &m.roots
	}
	return &m.secret
}

func (m *memory) Get(_ context.Context, _, name string) (*corev1.Secret, error) {
	secret := *m.of(name)
	if secret == nil {
		return nil, apierrors.NewNotFound(corev1.Resource("secrets"), name)
	}
	return secret.DeepCopy(), nil
}

func (m *memory) Apply(_ context.Context, secret *corev1.Secret, _ bool) (*corev1.Secret, error) {
	if m.fail != nil {
		return nil, m.fail
	}
	m.version++
	if strings.HasSuffix(secret.Name, policy.RootsSuffix) {
		m.rootsApplies++
	} else {
		m.applies++
	}
	applied := secret.DeepCopy()
	applied.ResourceVersion, applied.UID = strconv.Itoa(m.version), types.UID(secret.Name+"-1")
	*m.of(secret.Name) = applied
	return applied.DeepCopy(), nil
}

func (m *memory) Annotate(_ context.Context, secret *corev1.Secret, key, value string) (*corev1.Secret, error) {
	current := *m.of(secret.Name)
	if m.fail != nil || current == nil || current.ResourceVersion != secret.ResourceVersion {
		return nil, errors.Join(m.fail, errors.New("the object has been modified"))
	}
	m.version++
	m.annotations++
	current.ResourceVersion = strconv.Itoa(m.version)
	metav1.SetMetaDataAnnotation(&current.ObjectMeta, key, value)
	return current.DeepCopy(), nil
}

func (m *memory) Delete(_ context.Context, _, name string, _ types.UID, _ string) error {
	*m.of(name) = nil
	return nil
}

// podClaim is the claim of a pod of namespace edge, of mode sidecar.
func podClaim(name, account string, age time.Duration) claim {
	return claim{
		pod: types.NamespacedName{Namespace: "edge", Name: name}, uid: types.UID(name + "-1"), mode: policy.Sidecar,
		created: noon.Add(-age), serviceAccount: account,
		secret: patches.SecretFacts{Forms: []patches.SecretForm{patches.FormRoots}, MissesChanges: true}, seesAll: true,
		options: policy.Options{Mode: policy.Sidecar, Delivery: policy.DeliveryFiles, SecretName: "istio-certs", Source: policy.IstioCA},
	}
}

func defaultMesh() map[string]meshSettings {
	return map[string]meshSettings{"": {Mesh: patches.Mesh{}.WithDefaults()}}
}

// described lists the Events of a decision: type, reason, object and note, or what
// is resolved.
func described(changes []eventChange) []string {
	var list []string
	for _, c := range changes {
		line := fmt.Sprintf("%s %s %s/%s: %s", c.Type, c.Reason, c.Regarding.Kind, c.Regarding.Name, c.Note)
		if c.isResolved {
			line = fmt.Sprintf("resolve %s %s/%s", c.Reason, c.Regarding.Kind, c.Regarding.Name)
		}
		list = append(list, line)
	}
	return list
}

// certtestDay is the validity of a certificate for a day, dated back as Istio's CA does.
func certtestDay(issued time.Time) certtest.Option {
	return certtest.Validity(issued.Add(-2*time.Minute), issued.Add(24*time.Hour))
}
