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

func TestMissingCertManagerIsReported(t *testing.T) {
	require.ErrorIs(t, beforeInstall, certmanager.ErrNotInstalled)
	assert.ErrorContains(t, beforeInstall, "cert-manager is not installed: no Certificate kind in cert-manager.io/v1")
}

func TestCertificateIsIssuedAndRenewed(t *testing.T) {
	t.Parallel()
	root := certtest.NewAuthority(t)
	env := newEnvironment(t, root)
	env.createIssuer(t, root)

	_, err := env.requestBundle(t)
	require.ErrorIs(t, err, certs.ErrPending)
	first, err := env.awaitBundle(t)
	require.NoError(t, err)
	assert.Equal(t, env.request.Want.ID, first.ID())
	chain, err := certs.ParseCertificates(first.Chain())
	require.NoError(t, err)
	assert.Equal(t, x509.KeyUsageDigitalSignature, chain[0].KeyUsage)
	assert.InDelta(t, 6*time.Hour, first.NotAfter().Sub(first.NotBefore()), float64(time.Second))

	issued := env.awaitIssued(t)
	renewalTime := first.NotBefore().Add(2 * time.Hour)
	assert.WithinDuration(t, renewalTime, issued.Status.RenewalTime.Time, 4*time.Minute, "renewed after a third of the lifetime, in whole percents")

	assert.EqualValues(t, 1, env.applyCount.Load(), "one apply, however often the bundle was requested until it was issued")
	unchanged, err := env.requestBundle(t)
	require.NoError(t, err)
	assert.Equal(t, first.Serial(), unchanged.Serial())
	assert.EqualValues(t, 1, env.applyCount.Load(), "nothing is applied again")

	env.requestRenewal(t)
	renewed := env.awaitNewBundle(t, first)
	assert.NotEqual(t, first.Key(), renewed.Key(), "the key is new")
}

func TestDeletedStagingSecretIsIssuedAgain(t *testing.T) {
	t.Parallel()
	root := certtest.NewAuthority(t)
	env := newEnvironment(t, root)
	env.createIssuer(t, root)
	first, err := env.awaitBundle(t)
	require.NoError(t, err)

	env.awaitIssued(t)
	require.NoError(t, env.client.Delete(t.Context(), env.stagingSecret(t)))
	env.awaitNewBundle(t, first)
}

func TestCertificateFollowsTheRequest(t *testing.T) {
	t.Parallel()
	root := certtest.NewAuthority(t)
	env := newEnvironment(t, root)
	env.createIssuer(t, root)
	first, err := env.awaitBundle(t)
	require.NoError(t, err)

	id, err := certs.Identity("other.example.org", env.namespace, "emissary-ingress")
	require.NoError(t, err)
	env.request.Want.ID = id
	env.request.TTL = 10 * time.Minute
	_, err = env.requestBundle(t)
	require.Equal(t, certs.WrongIdentity, certs.ReasonOf(err), "the old certificate is rejected: %v", err)
	renamed := env.awaitNewBundle(t, first)
	assert.Equal(t, id, renamed.ID())
	assert.Equal(t, time.Hour, env.certificate(t).Spec.Duration.Duration, "the shortest duration that cert-manager's webhook accepts")

	eventually(t, "another client changes the certificate", func() bool {
		certificate := env.awaitIssued(t)
		certificate.Spec.URIs = []string{"spiffe://other.example.org/ns/x/sa/y"}
		return env.client.Update(t.Context(), certificate) == nil
	})
	before := env.applyCount.Load()
	_, err = env.requestBundle(t) // if cert-manager was faster, there is no bundle
	require.True(t, err == nil || certs.ReasonOf(err) == certs.WrongIdentity, "%v", err)
	assert.Equal(t, []string{id.String()}, env.certificate(t).Spec.URIs, "the change of another client is reverted")
	assert.Greater(t, env.applyCount.Load(), before)
}

func TestIssuerThatTheMeshDoesNotTrustIsReported(t *testing.T) {
	t.Parallel()
	env := newEnvironment(t, certtest.NewAuthority(t))
	env.createIssuer(t, certtest.NewAuthority(t, certtest.CommonName("another CA")))
	_, err := env.awaitBundle(t)
	require.Equal(t, certs.Untrusted, certs.ReasonOf(err), "%v", err)
	assert.ErrorContains(t, err, `staging secret `+env.namespace+`/istio-certs-issued: Issuer "ca" signs with a CA that is not in istio-ca-root-cert: untrusted: `)
	assert.NotContains(t, err.Error(), "PRIVATE KEY")
}

func TestIntermediateOfTheMeshIsPublished(t *testing.T) {
	t.Parallel()
	root := certtest.NewAuthority(t)
	env := newEnvironment(t, root)
	intermediate := root.Intermediate(t)
	intermediate.CertificatePEM = append(intermediate.CertificatePEM, root.CertificatePEM...)
	env.createIssuer(t, intermediate)
	b, err := env.awaitBundle(t)
	require.NoError(t, err)
	chain, err := certs.ParseCertificates(b.Chain())
	require.NoError(t, err)
	assert.Len(t, chain, 2, "leaf and intermediate")
}

func TestPendingErrorNamesTheCause(t *testing.T) {
	t.Parallel()
	root := certtest.NewAuthority(t)
	env := newEnvironment(t, root)
	awaitMessage := func(want string) {
		t.Helper()
		var err error
		eventually(t, want, func() bool {
			_, err = env.requestBundle(t)
			require.ErrorIs(t, err, certs.ErrPending)
			return strings.Contains(err.Error(), want)
		})
	}
	prefix := "the certificate is not issued yet: certificate " + env.namespace + "/istio-certs: "
	missing := "Issuing is True, DoesNotExist: Issuing certificate as Secret does not exist; Ready is False, DoesNotExist: Issuing certificate as Secret does not exist; "
	awaitMessage(prefix + missing + `there is no Issuer "ca"`)

	env.create(t, &cmapi.Issuer{
		ObjectMeta: env.objectMeta("ca"),
		Spec:       cmapi.IssuerSpec{IssuerConfig: cmapi.IssuerConfig{CA: &cmapi.CAIssuer{SecretName: "ca"}}},
	})
	awaitMessage(prefix + missing + `Issuer "ca": Ready is False, ErrGetKeyPair: Error getting keypair for CA issuer: secrets "ca" not found`)

	env.create(t, &corev1.Secret{
		ObjectMeta: env.objectMeta("ca"), Type: corev1.SecretTypeTLS,
		Data: map[string][]byte{"tls.crt": root.CertificatePEM, "tls.key": root.KeyPEM},
	})
	_, err := env.awaitBundle(t)
	assert.NoError(t, err, "the source recovers")
}

func TestForeignCertificateIsRefused(t *testing.T) {
	t.Parallel()
	env := newEnvironment(t, certtest.NewAuthority(t))
	env.create(t, &cmapi.Certificate{
		ObjectMeta: env.objectMeta(secretName),
		Spec:       cmapi.CertificateSpec{SecretName: "theirs", DNSNames: []string{"edge.test"}, IssuerRef: cmmeta.IssuerReference{Name: "theirs"}},
	})
	before := env.certificate(t)
	_, err := env.requestBundle(t)
	require.ErrorIs(t, err, certmanager.ErrForeign)
	assert.EqualError(t, err, "certificate "+env.namespace+"/istio-certs is left unchanged: it is not managed by Isthmus: it has no label app.kubernetes.io/managed-by=isthmus")
	require.NoError(t, env.source.Remove(t.Context(), env.namespace, secretName))
	after := env.certificate(t)
	assert.Equal(t, before.Spec, after.Spec)
	assert.Zero(t, env.applyCount.Load())
}

func TestForeignStagingSecretIsRefused(t *testing.T) {
	t.Parallel()
	root := certtest.NewAuthority(t)
	env := newEnvironment(t, root)
	env.createIssuer(t, root)
	env.create(t, &corev1.Secret{ObjectMeta: env.objectMeta("istio-certs-issued"), StringData: map[string]string{"theirs": "1"}})
	before := env.stagingSecret(t)
	_, err := env.requestBundle(t)
	require.ErrorIs(t, err, certmanager.ErrForeign)
	assert.ErrorContains(t, err, "secret "+env.namespace+"/istio-certs-issued is left unchanged")
	env.assertGone(t, &cmapi.Certificate{ObjectMeta: env.objectMeta(secretName)})
	require.NoError(t, env.source.Remove(t.Context(), env.namespace, secretName))
	assert.Equal(t, before, env.stagingSecret(t))
}

func TestRemoveDeletesCertificateAndStagingSecret(t *testing.T) {
	t.Parallel()
	root := certtest.NewAuthority(t)
	env := newEnvironment(t, root)
	require.NoError(t, env.source.Remove(t.Context(), env.namespace, secretName), "there is nothing to remove")
	env.createIssuer(t, root)
	_, err := env.awaitBundle(t)
	require.NoError(t, err)
	require.NoError(t, env.source.Remove(t.Context(), env.namespace, secretName))
	env.assertGone(t, &cmapi.Certificate{ObjectMeta: env.objectMeta(secretName)})
	env.assertGone(t, &corev1.Secret{ObjectMeta: env.objectMeta("istio-certs-issued")})
}

// awaitIssued waits until cert-manager has issued the Certificate. If the staging Secret is
// deleted earlier, cert-manager writes the same certificate again.
func (env *environment) awaitIssued(t *testing.T) *cmapi.Certificate {
	t.Helper()
	var c *cmapi.Certificate
	eventually(t, "cert-manager is done", func() bool {
		c = env.certificate(t)
		conditions := c.Status.Conditions
		return len(conditions) == 1 && conditions[0].Type == cmapi.CertificateConditionReady && conditions[0].Status == cmmeta.ConditionTrue &&
			c.Status.RenewalTime != nil
	})
	return c
}

// requestRenewal does what cmctl renew does.
func (env *environment) requestRenewal(t *testing.T) {
	t.Helper()
	eventually(t, "the renewal is requested", func() bool {
		c := env.certificate(t)
		now := metav1.Now()
		c.Status.Conditions = append(c.Status.Conditions, cmapi.CertificateCondition{
			Type: cmapi.CertificateConditionIssuing, Status: cmmeta.ConditionTrue, LastTransitionTime: &now,
			Reason: "ManuallyTriggered", Message: "Certificate re-issuance manually triggered",
		})
		return env.client.Status().Update(t.Context(), c) == nil
	})
}

// awaitNewBundle waits for a bundle other than the one before.
func (env *environment) awaitNewBundle(t *testing.T, before *certs.Bundle) *certs.Bundle {
	t.Helper()
	var b *certs.Bundle
	eventually(t, "there is a new bundle", func() bool {
		var err error
		b, err = env.requestBundle(t)
		return err == nil && b.Serial() != before.Serial()
	})
	return b
}
