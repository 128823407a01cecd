package certmanager

import (
	"context"
	"testing"
	"time"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	cmmeta "github.com/cert-manager/cert-manager/pkg/apis/meta/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"

	"github.com/isthmus-mesh/isthmus/internal/certs"
	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

// test/mesh/certmanagersource tests the rest beside cert-manager.

var p256 = certs.KeyAlgorithm{Type: certs.ECDSA, Size: 256}

type unused struct{}

func (unused) Get(context.Context, string, string) (*corev1.Secret, error) { panic("unexpected call") }

func (unused) Delete(context.Context, string, string, types.UID, string) error {
	panic("unexpected call")
}

func newSource(t *testing.T, issuer cmmeta.IssuerReference) *Source {
	t.Helper()
	s, err := New(Options{Dynamic: dynamic.New(&rest.RESTClient{}), Secrets: unused{}, Issuer: issuer})
	require.NoError(t, err)
	return s
}

func TestNewRequiresClientsAndBundleAnIssuer(t *testing.T) {
	_, err := New(Options{})
	require.EqualError(t, err, "certmanager: a dynamic client and Secrets are required")
	_, err = newSource(t, cmmeta.IssuerReference{}).Bundle(t.Context(), certs.Request{})
	require.ErrorIs(t, err, ErrNoIssuer)
	assert.EqualError(t, err, "the source cert-manager needs an issuer: set the chart's value controller.certManager.issuerRef.name (it is not configured)")
}

func TestLifetimeIsAnHourAtLeast(t *testing.T) {
	assert.Equal(t, policy.MinCertManagerTTL, cmapi.MinimumCertificateDuration)
	for ttl, want := range map[time.Duration]time.Duration{0: 0, 59 * time.Minute: time.Hour, time.Hour: time.Hour, 48 * time.Hour: 48 * time.Hour} {
		assert.Equal(t, want, lifetime(ttl), ttl)
	}
}

// Without an issuer the controller has no access to what an earlier one signed, so the
// error names it.
func TestRemoveWithoutAnIssuerNamesWhatStays(t *testing.T) {
	err := newSource(t, cmmeta.IssuerReference{}).Remove(t.Context(), "edge", "istio-certs")
	require.ErrorIs(t, err, certs.ErrNotConfigured)
	assert.ErrorContains(t, err, "certificate edge/istio-certs and secret edge/istio-certs-issued, unless somebody has deleted them: cert-manager goes on renewing them")
}

// cert-manager's webhook requires five minutes between renewal and expiry, and reads
// the percentage as what has passed, not as what is left.
func TestRenewalPassesTheWebhookForTheShortestLifetime(t *testing.T) {
	before := cmapi.MinimumCertificateDuration * (100 - renewBeforePercentage) / 100
	assert.GreaterOrEqual(t, before, cmapi.MinimumRenewBefore)
}

func TestDesiredCertificateIsForTheEdge(t *testing.T) {
	id, err := certs.Identity("cluster.local", "ingress", "emissary-ingress")
	require.NoError(t, err)
	r := certs.Request{Namespace: "ingress", Secret: "istio-certs", Want: certs.Want{ID: id}}
	for name, test := range map[string]struct {
		issuer, want cmmeta.IssuerReference
	}{
		"if only a name is given, expect an Issuer": {
			issuer: cmmeta.IssuerReference{Name: "ca"},
			want:   cmmeta.IssuerReference{Name: "ca", Kind: "Issuer", Group: "cert-manager.io"},
		},
		"if all is given, expect it": {
			issuer: cmmeta.IssuerReference{Name: "ca", Kind: "AWSPCAClusterIssuer", Group: "awspca.cert-manager.io"},
			want:   cmmeta.IssuerReference{Name: "ca", Kind: "AWSPCAClusterIssuer", Group: "awspca.cert-manager.io"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			assert.Equal(t, test.want, newSource(t, test.issuer).desiredCertificate(r, p256).Spec.IssuerRef)
		})
	}

	c := newSource(t, cmmeta.IssuerReference{Name: "ca"}).desiredCertificate(r, p256)
	assert.Equal(t, "istio-certs", c.Name)
	assert.Equal(t, "istio-certs-issued", c.Spec.SecretName)
	assert.Equal(t, []string{"spiffe://cluster.local/ns/ingress/sa/emissary-ingress"}, c.Spec.URIs)
	assert.Equal(t, []cmapi.KeyUsage{"digital signature", "client auth", "server auth"}, c.Spec.Usages)
	assert.Equal(t, &cmapi.CertificatePrivateKey{RotationPolicy: "Always", Algorithm: "ECDSA", Size: 256}, c.Spec.PrivateKey)
	rsa := newSource(t, cmmeta.IssuerReference{Name: "ca"}).desiredCertificate(r, certs.KeyAlgorithm{Type: certs.RSA, Size: 3072})
	assert.Equal(t, &cmapi.CertificatePrivateKey{RotationPolicy: "Always", Algorithm: "RSA", Size: 3072}, rsa.Spec.PrivateKey)
	assert.Nil(t, c.Spec.Duration, "left to cert-manager")
	assert.Equal(t, int32(1), *c.Spec.RevisionHistoryLimit)
}

func TestSpecDiffersInTheFieldsThatAreSet(t *testing.T) {
	s := newSource(t, cmmeta.IssuerReference{Name: "ca"})
	r := certs.Request{Namespace: "ingress", Secret: "istio-certs", TTL: 6 * time.Hour}
	for name, test := range map[string]struct {
		change func(*cmapi.CertificateSpec)
		want   bool
	}{
		"if nothing changed, expect nothing":               {func(*cmapi.CertificateSpec) {}, false},
		"if the API server filled a field, expect nothing": {func(c *cmapi.CertificateSpec) { c.PrivateKey.Encoding = cmapi.PKCS1 }, false},
		"if the lifetime changed, expect a difference":     {func(c *cmapi.CertificateSpec) { c.Duration.Duration++ }, true},
		"if the lifetime went, expect a difference":        {func(c *cmapi.CertificateSpec) { c.Duration = nil }, true},
		"if a URI was added, expect a difference":          {func(c *cmapi.CertificateSpec) { c.URIs = append(c.URIs, "spiffe://x/y") }, true},
		"if a usage was added, expect a difference":        {func(c *cmapi.CertificateSpec) { c.Usages = append(c.Usages, cmapi.UsageCertSign) }, true},
		"if the issuer changed, expect a difference":       {func(c *cmapi.CertificateSpec) { c.IssuerRef.Name = "other" }, true},
		"if the key's size changed, expect a difference":   {func(c *cmapi.CertificateSpec) { c.PrivateKey.Size = 384 }, true},
		"if keys are kept, expect a difference":            {func(c *cmapi.CertificateSpec) { c.PrivateKey.RotationPolicy = cmapi.RotationPolicyNever }, true},
	} {
		t.Run(name, func(t *testing.T) {
			current := s.desiredCertificate(r, p256)
			test.change(&current.Spec)
			assert.Equal(t, test.want, specDiffers(s.desiredCertificate(r, p256), current))
		})
	}
	noTTL := r
	noTTL.TTL = 0
	assert.True(t, specDiffers(s.desiredCertificate(noTTL, p256), s.desiredCertificate(r, p256)), "a lifetime that is no longer requested")
}
