package mirror_test

import (
	"context"
	"crypto/x509"
	"errors"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/isthmus-mesh/isthmus/internal/certs"
	"github.com/isthmus-mesh/isthmus/internal/certs/mirror"
	"github.com/isthmus-mesh/isthmus/test/framework/certtest"
)

const edge = "spiffe://cluster.local/ns/edge/sa/emissary"

// namespace holds Secrets by "namespace/name", and may fail.
type namespace struct {
	secrets map[string]map[string][]byte
	err     error
}

func (n *namespace) Get(_ context.Context, namespace, name string) (*corev1.Secret, error) {
	if n.err != nil {
		return nil, n.err
	}
	data, ok := n.secrets[namespace+"/"+name]
	if !ok {
		return nil, apierrors.NewNotFound(corev1.Resource("secrets"), name)
	}
	return &corev1.Secret{Data: data}, nil
}

func request(root *certtest.Pair) certs.Request {
	return certs.Request{
		Namespace: "edge", ServiceAccount: "emissary", Secret: "istio-certs", MirrorSecret: "istio.emissary",
		Want: certs.Want{ID: spiffeid.RequireFromString(edge), Roots: []*x509.Certificate{root.Certificate}, Now: time.Now()},
	}
}

func TestBundleIsTheSecretsContent(t *testing.T) {
	root := certtest.NewAuthority(t)
	leaf, next := root.SPIFFELeaf(t, edge), root.SPIFFELeaf(t, edge)
	n := &namespace{secrets: map[string]map[string][]byte{
		"edge/istio.emissary": {"cert-chain.pem": leaf.ChainPEM, "key.pem": leaf.KeyPEM, "root-cert.pem": root.CertificatePEM},
	}}
	m := mirror.Mirror{Secrets: n}
	b, err := m.Bundle(context.Background(), request(root))
	require.NoError(t, err)
	assert.Equal(t, certs.Serial(leaf.Certificate), b.Serial())

	n.secrets["edge/istio.emissary"] = map[string][]byte{"tls.crt": next.ChainPEM, "tls.key": next.KeyPEM}
	b, err = m.Bundle(context.Background(), request(root))
	require.NoError(t, err)
	assert.Equal(t, certs.Serial(next.Certificate), b.Serial())
}

func TestBundleNamesTheSecretAndWhatToDo(t *testing.T) {
	root := certtest.NewAuthority(t)
	leaf := root.SPIFFELeaf(t, edge)
	other := root.SPIFFELeaf(t, "spiffe://cluster.local/ns/edge/sa/other")
	forbidden := apierrors.NewForbidden(corev1.Resource("secrets"), "istio.emissary", errors.New("no"))
	holding := func(data map[string][]byte) *namespace {
		return &namespace{secrets: map[string]map[string][]byte{"edge/istio.emissary": data}}
	}
	for name, test := range map[string]struct {
		namespace *namespace
		change    func(*certs.Request)
		expect    string
		reason    certs.Reason
	}{
		"if there is none, expect that it has to be created": {namespace: &namespace{},
			expect: `mirror: secret edge/istio.emissary does not exist; create it, or choose another with isthmus.dev/mirror-secret: secrets "istio.emissary" not found`},
		"if it is forbidden, expect the chart's value": {namespace: &namespace{err: forbidden},
			expect: `mirror: secret edge/istio.emissary must not be read; add its name to the chart's value controller.mirrorSecretNames: secrets "istio.emissary" is forbidden: no`},
		"if the API server fails, expect its words": {namespace: &namespace{err: errors.New("connection refused")},
			expect: "mirror: read secret edge/istio.emissary: connection refused"},
		"if it is the Secret itself, expect a refusal": {namespace: &namespace{}, change: func(r *certs.Request) { r.MirrorSecret = r.Secret },
			expect: "mirror: secret edge/istio-certs would mirror itself; choose another with isthmus.dev/mirror-secret"},
		"if it is empty, expect malformed": {namespace: holding(nil), reason: certs.Malformed,
			expect: "mirror: secret edge/istio.emissary: malformed: tls.crt is missing or empty"},
		"if it is another's, expect wrong-identity": {
			namespace: holding(map[string][]byte{"tls.crt": other.ChainPEM, "tls.key": other.KeyPEM}), reason: certs.WrongIdentity,
			expect: `mirror: secret edge/istio.emissary: wrong-identity: want SPIFFE ID "` + edge + `", got "spiffe://cluster.local/ns/edge/sa/other"`},
		"if it is torn, expect key-mismatch": {
			namespace: holding(map[string][]byte{"tls.crt": leaf.ChainPEM, "tls.key": other.KeyPEM}), reason: certs.KeyMismatch,
			expect: "mirror: secret edge/istio.emissary: key-mismatch: the private key does not belong to the certificate with serial " + certs.Serial(leaf.Certificate)},
	} {
		t.Run(name, func(t *testing.T) {
			r := request(root)
			if test.change != nil {
				test.change(&r)
			}
			b, err := (&mirror.Mirror{Secrets: test.namespace}).Bundle(context.Background(), r)
			assert.Nil(t, b)
			require.EqualError(t, err, test.expect)
			assert.Equal(t, test.reason, certs.ReasonOf(err))
			if test.namespace.err != nil {
				assert.ErrorIs(t, err, test.namespace.err)
			}
		})
	}
}
