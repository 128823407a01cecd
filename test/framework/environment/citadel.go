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

// OldIstio writes a Secret istio.<service account> in the form of Istio up to
// 1.4, whose Citadel cannot run on a Kubernetes of today; the certificates in it
// are the real istiod's.
type OldIstio struct {
	world   *World
	source  *istioca.Source
	request certs.Request
}

// OldIstio writes the first one.
func (w *World) OldIstio(t testing.TB, namespace, account string) *OldIstio {
	t.Helper()
	source, err := istioca.New(istioca.Options{Client: w.Kube, Roots: w.roots, Log: logr.Discard()})
	require.NoError(t, err)
	t.Cleanup(source.Close)
	o := &OldIstio{world: w, source: source, request: certs.Request{
		Namespace: namespace, ServiceAccount: account, CAAddress: w.Istiod.Address, TokenAudience: "istio-ca",
		TTL: time.Minute, Want: certs.Want{ID: Identity(t, namespace, account)},
	}}
	o.Rotate(t)
	return o
}

// Rotate writes a new certificate.
func (o *OldIstio) Rotate(t testing.TB) {
	t.Helper()
	roots, err := o.world.roots()
	require.NoError(t, err)
	r := o.request
	r.Want.Roots, r.Want.Now = roots, time.Now()
	b, err := o.source.Bundle(t.Context(), r)
	require.NoError(t, err)
	secret := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: "istio." + r.ServiceAccount, Namespace: r.Namespace},
		Type:       "istio.io/key-and-cert",
		Data:       map[string][]byte{"cert-chain.pem": b.Chain(), "key.pem": b.Key(), "root-cert.pem": b.Roots()},
	}
	api := o.world.Kube.CoreV1().Secrets(r.Namespace)
	_, err = api.Update(t.Context(), secret, metav1.UpdateOptions{})
	if apierrors.IsNotFound(err) {
		_, err = api.Create(t.Context(), secret, metav1.CreateOptions{})
	}
	require.NoError(t, err)
}
