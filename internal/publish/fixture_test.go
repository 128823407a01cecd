package publish_test

import (
	"context"
	"crypto/x509"
	"fmt"
	"net/url"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/isthmus-mesh/isthmus/internal/certs"
	"github.com/isthmus-mesh/isthmus/internal/publish"
	"github.com/isthmus-mesh/isthmus/test/framework/certtest"
)

const (
	edge  = "spiffe://cluster.local/ns/edge/sa/emissary"
	other = "spiffe://cluster.local/ns/edge/sa/other"
)

// start is when the tests begin. Hours and minutes count from it.
var start = time.Now().Truncate(time.Second)

func after(d time.Duration) time.Time { return start.Add(d) }

// mesh is the certificate authority of a mesh.
type mesh struct {
	t    *testing.T
	root *certtest.Pair
}

func newMesh(t *testing.T) mesh {
	return mesh{t, certtest.NewAuthority(t, certtest.Validity(start.Add(-1000*time.Hour), start.Add(1000*time.Hour)))}
}

// bundle is a bundle of the edge, valid from two minutes before issued to until.
func (m mesh) bundle(issued, until time.Duration) *certs.Bundle {
	m.t.Helper()
	return m.bundleFor(edge, issued, until, m)
}

func (m mesh) bundleFor(id string, issued, until time.Duration, roots ...mesh) *certs.Bundle {
	m.t.Helper()
	uri, err := url.Parse(id)
	require.NoError(m.t, err)
	leaf := m.root.Leaf(m.t, certtest.URIs(uri), certtest.Validity(after(issued-2*time.Minute), after(until)))
	b, err := certs.New(certs.Material{Key: leaf.KeyPEM, Chain: leaf.ChainPEM, Roots: m.root.CertificatePEM},
		certs.Want{ID: spiffeid.RequireFromString(id), Roots: rootsOf(roots...), Now: after(max(issued, 0))})
	require.NoError(m.t, err)
	return b
}

func rootsOf(meshes ...mesh) []*x509.Certificate {
	var roots []*x509.Certificate
	for _, m := range meshes {
		roots = append(roots, m.root.Certificate)
	}
	return roots
}

// target is Secret edge/istio-certs, with the roots of these meshes.
func target(meshes ...mesh) publish.Target {
	return publish.Target{
		Namespace: "edge", Name: "istio-certs", ID: spiffeid.RequireFromString(edge), Source: "agent", Roots: rootsOf(meshes...),
	}
}

// published is the Secret after the bundle was published into it, with a change.
func published(t *testing.T, b *certs.Bundle, target publish.Target, at time.Duration, change func(*corev1.Secret)) *corev1.Secret {
	t.Helper()
	s := &store{}
	target.ID = b.ID()
	p := publish.Publisher{Secrets: s, Now: func() time.Time { return after(at) }}
	out, err := p.Publish(t.Context(), target, b, publish.WhenDue)
	require.NoError(t, err)
	require.Equal(t, publish.Published, out.Result)
	if change != nil {
		change(s.secret)
	}
	return s.secret
}

// store is an API server with one Secret. test/integration/publish shows that a
// real API server answers in the same way.
type store struct {
	mu      sync.Mutex
	secret  *corev1.Secret
	version int
	applies []bool // force of every apply
	// before runs before each apply, as another client.
	before func(s *store)
	// manager is the other field manager of our fields, if any.
	manager string
	fail    error
}

func (s *store) Get(_ context.Context, _, name string) (*corev1.Secret, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fail != nil {
		return nil, s.fail
	}
	if s.secret == nil {
		return nil, apierrors.NewNotFound(schema.GroupResource{Resource: "secrets"}, name)
	}
	return s.secret.DeepCopy(), nil
}

func (s *store) Apply(_ context.Context, secret *corev1.Secret, force bool) (*corev1.Secret, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.applies = append(s.applies, force)
	if s.before != nil {
		s.before(s)
	}
	conflict := func(text string, causes ...metav1.StatusCause) error {
		err := apierrors.NewConflict(schema.GroupResource{Resource: "secrets"}, secret.Name, fmt.Errorf("%s", text))
		err.ErrStatus.Details.Causes = causes
		return err
	}
	switch {
	case s.fail != nil:
		return nil, s.fail
	case s.secret == nil && secret.UID != "":
		return nil, conflict("uid mismatch")
	case s.secret != nil && secret.ResourceVersion != "" && secret.ResourceVersion != s.secret.ResourceVersion:
		return nil, conflict("the object has been modified")
	case s.secret != nil && s.manager != "" && !force:
		return nil, conflict("conflict with "+s.manager, metav1.StatusCause{Type: metav1.CauseTypeFieldManagerConflict})
	}
	s.put(secret)
	s.manager = ""
	return s.secret.DeepCopy(), nil
}

// put writes the Secret. The caller holds the lock.
func (s *store) put(secret *corev1.Secret) {
	s.version++
	uid := types.UID("uid-" + strconv.Itoa(s.version))
	if s.secret != nil {
		uid = s.secret.UID
	}
	s.secret = secret.DeepCopy()
	s.secret.UID, s.secret.ResourceVersion = uid, strconv.Itoa(s.version+1)
}
