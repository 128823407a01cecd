package security

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"net/url"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	pb "istio.io/api/security/v1alpha1"
	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/isthmus-mesh/isthmus/internal/certs"
)

// meshToken returns a token for the mesh's CA, like that of the sidecar.
func meshToken(t testing.TB, namespace, account string) (token string, expiry time.Time) {
	t.Helper()
	return tokenFor(t, namespace, account, "istio-ca")
}

func tokenFor(t testing.TB, namespace, account, audience string) (token string, expiry time.Time) {
	t.Helper()
	r, err := env.Kube.CoreV1().ServiceAccounts(namespace).CreateToken(t.Context(), account, &authenticationv1.TokenRequest{
		Spec: authenticationv1.TokenRequestSpec{Audiences: []string{audience}, ExpirationSeconds: ptr.To[int64](600)},
	}, metav1.CreateOptions{})
	require.NoError(t, err)
	return r.Status.Token, r.Status.ExpirationTimestamp.Time
}

// requestCertificate has the real istiod sign a request with names of the attacker's choice,
// and returns the names in the certificate.
func requestCertificate(ctx context.Context, t testing.TB, token string, names ...string) ([]string, error) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.CertificateRequest{DNSNames: []string{"istiod.istio-system.svc"}}
	for _, name := range names {
		u, err := url.Parse(name)
		require.NoError(t, err)
		template.URIs = append(template.URIs, u)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, template, key)
	require.NoError(t, err)
	roots, err := env.Istiod.Roots(ctx, "istio-system")
	require.NoError(t, err)
	pool := x509.NewCertPool()
	require.True(t, pool.AppendCertsFromPEM(roots))
	conn, err := grpc.NewClient(env.Istiod.Address, grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12})))
	require.NoError(t, err)
	defer func() { _ = conn.Close() }()
	ctx, cancel := context.WithTimeout(metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+token), timeout)
	defer cancel()
	answer, err := pb.NewIstioCertificateServiceClient(conn).CreateCertificate(ctx, &pb.IstioCertificateRequest{
		Csr: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})),
	})
	if err != nil {
		return nil, err
	}
	leaf, err := certs.ParseCertificates([]byte(answer.GetCertChain()[0]))
	if err != nil || len(leaf) == 0 {
		return nil, errors.Join(err, errors.New("no certificate"))
	}
	got := append([]string{}, leaf[0].DNSNames...)
	for _, u := range leaf[0].URIs {
		got = append(got, u.String())
	}
	return got, nil
}

// TestStolenMeshToken checks that the sidecar's token gets certificates of its own service
// account only, whatever the request names, and expires with the account.
func TestStolenMeshToken(t *testing.T) {
	t.Parallel()
	sharedServers(t)
	ns := env.CreateNamespace(t, nil, "edge", "other")
	token, expiry := meshToken(t, ns, "edge")
	ownID := "spiffe://cluster.local/ns/" + ns + "/sa/edge"
	for name, requested := range map[string][]string{
		"if it asks for its own name, expect its own":           {ownID},
		"if it asks for another account's, expect its own":      {"spiffe://cluster.local/ns/" + ns + "/sa/admin"},
		"if it asks for istiod's, expect its own":               {"spiffe://cluster.local/ns/istio-system/sa/istiod"},
		"if it asks for another trust domain's, expect its own": {"spiffe://elsewhere/ns/a/sa/b"},
		"if it asks for two, expect its own":                    {ownID, "spiffe://cluster.local/ns/a/sa/b"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := requestCertificate(t.Context(), t, token, requested...)
			require.NoError(t, err)
			assert.Equal(t, []string{ownID}, got)
		})
	}
	t.Run("if it is for the API server, expect no certificate", func(t *testing.T) {
		api, _ := tokenFor(t, ns, "edge", "https://kubernetes.default.svc")
		_, err := requestCertificate(t.Context(), t, api, ownID)
		assert.ErrorContains(t, err, "Unauthenticated")
	})
	t.Run("it ends by itself", func(t *testing.T) {
		assert.WithinDuration(t, time.Now().Add(10*time.Minute), expiry, 2*time.Minute)
	})
	t.Run("it ends with its account", func(t *testing.T) {
		require.NoError(t, env.Kube.CoreV1().ServiceAccounts(ns).Delete(t.Context(), "edge", metav1.DeleteOptions{}))
		require.EventuallyWithT(t, func(c *assert.CollectT) {
			_, err := requestCertificate(t.Context(), t, token, ownID)
			assert.ErrorContains(c, err, "Unauthenticated")
		}, timeout, 500*time.Millisecond)
	})
	other, _ := meshToken(t, ns, "other")
	t.Run("where it is not one of the API server's audiences, it opens nothing there", func(t *testing.T) {
		review, err := env.Kube.AuthenticationV1().TokenReviews().Create(t.Context(), &authenticationv1.TokenReview{
			Spec: authenticationv1.TokenReviewSpec{Token: other, Audiences: []string{"https://kubernetes.default.svc"}},
		}, metav1.CreateOptions{})
		require.NoError(t, err)
		assert.False(t, review.Status.Authenticated)
	})
	t.Run("where it is one, as here, it is the account's, and a default token is one for the CA", func(t *testing.T) {
		assert.Empty(t, permissions(t, clientForToken(t, other), ns))
		api, err := env.CreateToken(t.Context(), ns, "other")
		require.NoError(t, err)
		got, err := requestCertificate(t.Context(), t, api)
		require.NoError(t, err)
		assert.Equal(t, []string{"spiffe://cluster.local/ns/" + ns + "/sa/other"}, got)
	})
}
