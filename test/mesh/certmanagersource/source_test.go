package certmanagersource

import (
	"crypto/x509"
	"strings"
	"testing"
	"time"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	cmmeta "github.com/cert-manager/cert-manager/pkg/apis/meta/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/isthmus-mesh/isthmus/internal/certs"
	"github.com/isthmus-mesh/isthmus/internal/certs/certmanager"
	"github.com/isthmus-mesh/isthmus/test/framework/certtest"
)

func TestCertManagerIsNotInstalled(t *testing.T) {
	require.ErrorIs(t, beforeInstall, certmanager.ErrNotInstalled)
	assert.ErrorContains(t, beforeInstall, "cert-manager is not installed: no Certificate kind in cert-manager.io/v1")
}

func TestIssuesAndRenews(t *testing.T) {
	t.Parallel()
	root := certtest.NewAuthority(t)
	w := newWorld(t, root)
	w.issue(t, root)

	_, err := w.bundle(t)
	require.ErrorIs(t, err, certs.ErrPending)
	first, err := w.await(t)
	require.NoError(t, err)
	assert.Equal(t, w.request.Want.ID, first.ID())
	issued, err := certs.ParseCertificates(first.Chain())
	require.NoError(t, err)
	assert.Equal(t, x509.KeyUsageDigitalSignature, issued[0].KeyUsage)
	assert.InDelta(t, 6*time.Hour, first.NotAfter().Sub(first.NotBefore()), float64(time.Second))

	standing := w.settle(t)
	third := first.NotBefore().Add(2 * time.Hour)
	assert.WithinDuration(t, third, standing.Status.RenewalTime.Time, 4*time.Minute, "renewed at a third, in whole percents")

	assert.EqualValues(t, 1, w.applies.Load(), "one apply, for all the looks until it was issued")
	again, err := w.bundle(t)
	require.NoError(t, err)
	assert.Equal(t, first.Serial(), again.Serial())
	assert.EqualValues(t, 1, w.applies.Load(), "nothing is applied again")

	w.renew(t)
	renewed := w.awaitOther(t, first)
	assert.NotEqual(t, first.Key(), renewed.Key(), "the key is new")
}

func TestDeletedStagingSecretIsIssuedAgain(t *testing.T) {
	t.Parallel()
	root := certtest.NewAuthority(t)
	w := newWorld(t, root)
	w.issue(t, root)
	first, err := w.await(t)
	require.NoError(t, err)

	w.settle(t)
	require.NoError(t, w.client.Delete(t.Context(), w.staging(t)))
	w.awaitOther(t, first)
}

func TestCertificateFollowsTheRequest(t *testing.T) {
	t.Parallel()
	root := certtest.NewAuthority(t)
	w := newWorld(t, root)
	w.issue(t, root)
	first, err := w.await(t)
	require.NoError(t, err)

	id, err := certs.Identity("other.example.org", w.namespace, "emissary-ingress")
	require.NoError(t, err)
	w.request.Want.ID = id
	w.request.TTL = 10 * time.Minute
	_, err = w.bundle(t)
	require.Equal(t, certs.WrongIdentity, certs.ReasonOf(err), "the old one is no answer: %v", err)
	renamed := w.awaitOther(t, first)
	assert.Equal(t, id, renamed.ID())
	assert.Equal(t, time.Hour, w.certificate(t).Spec.Duration.Duration, "the least that cert-manager's webhook lets pass")

	eventually(t, "someone changes it", func() bool {
		someone := w.settle(t)
		someone.Spec.URIs = []string{"spiffe://other.example.org/ns/x/sa/y"}
		return w.client.Update(t.Context(), someone) == nil
	})
	before := w.applies.Load()
	_, err = w.bundle(t) // cert-manager may have been faster, and then there is none
	require.True(t, err == nil || certs.ReasonOf(err) == certs.WrongIdentity, "%v", err)
	assert.Equal(t, []string{id.String()}, w.certificate(t).Spec.URIs, "what someone changed is put right")
	assert.Greater(t, w.applies.Load(), before)
}

func TestIssuerIsNotTheMeshs(t *testing.T) {
	t.Parallel()
	w := newWorld(t, certtest.NewAuthority(t))
	w.issue(t, certtest.NewAuthority(t, certtest.CommonName("another CA")))
	_, err := w.await(t)
	require.Equal(t, certs.Untrusted, certs.ReasonOf(err), "%v", err)
	assert.ErrorContains(t, err, `staging secret `+w.namespace+`/istio-certs-issued: Issuer "ca" signs with a CA that is not in istio-ca-root-cert: untrusted: `)
	assert.NotContains(t, err.Error(), "PRIVATE KEY")
}

func TestIntermediateOfTheMesh(t *testing.T) {
	t.Parallel()
	root := certtest.NewAuthority(t)
	w := newWorld(t, root)
	between := root.Intermediate(t)
	between.CertificatePEM = append(between.CertificatePEM, root.CertificatePEM...)
	w.issue(t, between)
	b, err := w.await(t)
	require.NoError(t, err)
	chain, err := certs.ParseCertificates(b.Chain())
	require.NoError(t, err)
	assert.Len(t, chain, 2, "leaf and intermediate")
}

func TestPendingSaysWhy(t *testing.T) {
	t.Parallel()
	root := certtest.NewAuthority(t)
	w := newWorld(t, root)
	says := func(want string) {
		t.Helper()
		var err error
		eventually(t, want, func() bool {
			_, err = w.bundle(t)
			require.ErrorIs(t, err, certs.ErrPending)
			return strings.Contains(err.Error(), want)
		})
	}
	prefix := "the certificate is not issued yet: certificate " + w.namespace + "/istio-certs: "
	missing := "Issuing is True, DoesNotExist: Issuing certificate as Secret does not exist; Ready is False, DoesNotExist: Issuing certificate as Secret does not exist; "
	says(prefix + missing + `there is no Issuer "ca"`)

	w.create(t, &cmapi.Issuer{
		ObjectMeta: w.meta("ca"),
		Spec:       cmapi.IssuerSpec{IssuerConfig: cmapi.IssuerConfig{CA: &cmapi.CAIssuer{SecretName: "ca"}}},
	})
	says(prefix + missing + `Issuer "ca": Ready is False, ErrGetKeyPair: Error getting keypair for CA issuer: secrets "ca" not found`)

	w.create(t, &corev1.Secret{
		ObjectMeta: w.meta("ca"), Type: corev1.SecretTypeTLS,
		Data: map[string][]byte{"tls.crt": root.CertificatePEM, "tls.key": root.KeyPEM},
	})
	_, err := w.await(t)
	assert.NoError(t, err, "it heals")
}

func TestForeignCertificateIsRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t, certtest.NewAuthority(t))
	w.create(t, &cmapi.Certificate{
		ObjectMeta: w.meta(secretName),
		Spec:       cmapi.CertificateSpec{SecretName: "theirs", DNSNames: []string{"edge.test"}, IssuerRef: cmmeta.IssuerReference{Name: "theirs"}},
	})
	before := w.certificate(t)
	_, err := w.bundle(t)
	require.ErrorIs(t, err, certmanager.ErrForeign)
	assert.EqualError(t, err, "certificate "+w.namespace+"/istio-certs is left unchanged: it is not managed by Isthmus: it has no label app.kubernetes.io/managed-by=isthmus")
	require.NoError(t, w.source.Remove(t.Context(), w.namespace, secretName))
	after := w.certificate(t)
	assert.Equal(t, before.Spec, after.Spec)
	assert.Zero(t, w.applies.Load())
}

func TestForeignStagingSecretIsRefused(t *testing.T) {
	t.Parallel()
	root := certtest.NewAuthority(t)
	w := newWorld(t, root)
	w.issue(t, root)
	w.create(t, &corev1.Secret{ObjectMeta: w.meta("istio-certs-issued"), StringData: map[string]string{"theirs": "1"}})
	before := w.staging(t)
	_, err := w.bundle(t)
	require.ErrorIs(t, err, certmanager.ErrForeign)
	assert.ErrorContains(t, err, "secret "+w.namespace+"/istio-certs-issued is left unchanged")
	w.assertGone(t, &cmapi.Certificate{ObjectMeta: w.meta(secretName)})
	require.NoError(t, w.source.Remove(t.Context(), w.namespace, secretName))
	assert.Equal(t, before, w.staging(t))
}

func TestRemove(t *testing.T) {
	t.Parallel()
	root := certtest.NewAuthority(t)
	w := newWorld(t, root)
	require.NoError(t, w.source.Remove(t.Context(), w.namespace, secretName), "nothing is there")
	w.issue(t, root)
	_, err := w.await(t)
	require.NoError(t, err)
	require.NoError(t, w.source.Remove(t.Context(), w.namespace, secretName))
	w.assertGone(t, &cmapi.Certificate{ObjectMeta: w.meta(secretName)})
	w.assertGone(t, &corev1.Secret{ObjectMeta: w.meta("istio-certs-issued")})
}

// settle waits until cert-manager is done with the Certificate. Where the staging
// Secret is deleted before that, the same certificate is written again.
func (w *world) settle(t *testing.T) *cmapi.Certificate {
	t.Helper()
	var c *cmapi.Certificate
	eventually(t, "cert-manager is done", func() bool {
		c = w.certificate(t)
		conditions := c.Status.Conditions
		return len(conditions) == 1 && conditions[0].Type == cmapi.CertificateConditionReady && conditions[0].Status == cmmeta.ConditionTrue &&
			c.Status.RenewalTime != nil
	})
	return c
}

// renew does what cmctl renew does.
func (w *world) renew(t *testing.T) {
	t.Helper()
	eventually(t, "the renewal is asked for", func() bool {
		c := w.certificate(t)
		now := metav1.Now()
		c.Status.Conditions = append(c.Status.Conditions, cmapi.CertificateCondition{
			Type: cmapi.CertificateConditionIssuing, Status: cmmeta.ConditionTrue, LastTransitionTime: &now,
			Reason: "ManuallyTriggered", Message: "Certificate re-issuance manually triggered",
		})
		return w.client.Status().Update(t.Context(), c) == nil
	})
}

// awaitOther waits for a bundle that is not the one before.
func (w *world) awaitOther(t *testing.T, before *certs.Bundle) *certs.Bundle {
	t.Helper()
	var b *certs.Bundle
	eventually(t, "there is another bundle", func() bool {
		var err error
		b, err = w.bundle(t)
		return err == nil && b.Serial() != before.Serial()
	})
	return b
}
