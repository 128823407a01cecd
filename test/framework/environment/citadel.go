package environment

import (
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/isthmus-mesh/isthmus/internal/certs"
	"github.com/isthmus-mesh/isthmus/internal/certs/istioca"
)

// CitadelSecret is a Secret istio.<service account> in the format of Citadel, the CA of
// Istio up to 1.4, which does not run on current versions of Kubernetes. The
// certificates in it come from the real istiod.
type CitadelSecret struct {
	env     *Environment
	source  *istioca.Source
	request certs.Request
}

// WriteCitadelSecret writes the Secret of a service account with a first certificate.
func (env *Environment) WriteCitadelSecret(t testing.TB, namespace, account string) *CitadelSecret {
	t.Helper()
	source, err := istioca.New(istioca.Options{Client: env.Kube, Roots: env.roots, Log: logr.Discard()})
	require.NoError(t, err)
	t.Cleanup(source.Close)
	c := &CitadelSecret{env: env, source: source, request: certs.Request{
		Namespace: namespace, ServiceAccount: account, CAAddress: env.Istiod.Address, TokenAudience: "istio-ca",
		TTL: time.Minute, Want: certs.Want{ID: Identity(t, namespace, account)},
	}}
	c.Rotate(t)
	return c
}

// Rotate replaces the certificate in the Secret.
func (c *CitadelSecret) Rotate(t testing.TB) {
	t.Helper()
	roots, err := c.env.roots()
	require.NoError(t, err)
	r := c.request
	r.Want.Roots, r.Want.Now = roots, time.Now()
	b, err := c.source.Bundle(t.Context(), r)
	require.NoError(t, err)
	secret := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: "istio." + r.ServiceAccount, Namespace: r.Namespace},
		Type:       "istio.io/key-and-cert",
		Data:       map[string][]byte{"cert-chain.pem": b.Chain(), "key.pem": b.Key(), "root-cert.pem": b.Roots()},
	}
	api := c.env.Kube.CoreV1().Secrets(r.Namespace)
	_, err = api.Update(t.Context(), secret, metav1.UpdateOptions{})
	if apierrors.IsNotFound(err) {
		_, err = api.Create(t.Context(), secret, metav1.CreateOptions{})
	}
	require.NoError(t, err)
}
