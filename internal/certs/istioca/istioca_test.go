package istioca

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	authenticationv1 "k8s.io/api/authentication/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes/fake"
	ktesting "k8s.io/client-go/testing"

	"github.com/isthmus-mesh/isthmus/internal/certs"
	"github.com/isthmus-mesh/isthmus/test/framework/certtest"
)

func TestBundleRequestsWhatIstiosAgentRequests(t *testing.T) {
	a := newAuthority(t)
	client, specs := tokens(nil)
	s, r := a.source(t, func(o *Options) { o.Client = client }), a.request(t)
	r.TTL, r.ClusterID = 1500*time.Millisecond+time.Hour, "our-cluster"
	b, err := s.Bundle(t.Context(), r)
	require.NoError(t, err)
	assert.Equal(t, edgeID, b.ID().String())
	chain, err := certs.ParseCertificates(b.Chain())
	require.NoError(t, err)
	assert.Len(t, chain, 1, "without the root")

	seconds := int64(600)
	assert.Equal(t, map[string]authenticationv1.TokenRequestSpec{
		"front/edge": {Audiences: []string{"istio-ca"}, ExpirationSeconds: &seconds},
	}, specs())
	require.Len(t, a.received(), 1)
	asked := a.received()[0]
	assert.Equal(t, []string{"Bearer " + token}, asked.headers.Get("authorization"))
	assert.Equal(t, []string{"our-cluster"}, asked.headers.Get("ClusterID"))
	assert.Equal(t, int64(3602), asked.ValidityDuration)
	block, _ := pem.Decode([]byte(asked.Csr))
	csr, err := x509.ParseCertificateRequest(block.Bytes)
	require.NoError(t, err)
	require.NoError(t, csr.CheckSignature())
	require.Len(t, csr.URIs, 1)
	assert.Equal(t, edgeID, csr.URIs[0].String())
	assert.Empty(t, csr.Subject.String())
	key, ok := csr.PublicKey.(*ecdsa.PublicKey)
	require.True(t, ok)
	assert.Equal(t, elliptic.P256(), key.Curve)

	r.TokenAudience, r.ClusterID = "another", ""
	second, err := s.Bundle(t.Context(), r)
	require.NoError(t, err)
	assert.NotEqual(t, b.Key(), second.Key(), "every certificate has its own key")
	assert.Equal(t, []string{"another"}, specs()["front/edge"].Audiences)
	assert.Empty(t, a.received()[1].headers.Get("clusterid"))
	opened, _ := a.connections()
	assert.Equal(t, 1, opened, "one connection for both")
}

func TestBundleReportsTheAuthoritysAnswer(t *testing.T) {
	stranger := certtest.NewAuthority(t)
	refuses := func(code codes.Code, text string) func(*authority) answer {
		return func(*authority) answer {
			return func(context.Context, request) ([]string, error) { return nil, status.Error(code, text) }
		}
	}
	certifies := func(signer *certtest.Pair, id string, from time.Time, ttl time.Duration) func(*authority) answer {
		return func(a *authority) answer {
			return func(_ context.Context, r request) ([]string, error) {
				if signer == nil {
					signer = a.root
				}
				return a.certify(r, signer, id, from, ttl)
			}
		}
	}
	answersWith := func(chain ...string) func(*authority) answer {
		return func(*authority) answer {
			return func(context.Context, request) ([]string, error) { return chain, nil }
		}
	}
	other := stranger.SPIFFELeaf(t, edgeID)

	for name, c := range map[string]struct {
		answer   func(*authority) answer
		reason   Reason
		rejected certs.Reason
		message  string
	}{
		"if the chain is empty, expect malformed":                     {answersWith(), Rejected, certs.Malformed, "certificate chain"},
		"if the chain is no PEM, expect malformed":                    {answersWith("MII", "MII"), Rejected, certs.Malformed, "certificate chain"},
		"if the chain holds a key, expect malformed":                  {answersWith(string(other.CertificatePEM), string(other.KeyPEM)), Rejected, certs.Malformed, "certificate chain"},
		"if the key is another one, expect key-mismatch":              {answersWith(string(other.CertificatePEM)), Rejected, certs.KeyMismatch, "does not belong"},
		"if the root comes alone, expect key-mismatch":                {answersWith(string(stranger.CertificatePEM)), Rejected, certs.KeyMismatch, "does not belong"},
		"if the identity is another, expect wrong-identity":           {certifies(nil, "spiffe://cluster.local/ns/front/sa/other", time.Now().Add(-time.Minute), time.Hour), Rejected, certs.WrongIdentity, "sa/other"},
		"if another root signs and is sent along, expect untrusted":   {certifies(stranger, edgeID, time.Now().Add(-time.Minute), time.Hour), Rejected, certs.Untrusted, "unknown authority"},
		"if it is expired, expect expired":                            {certifies(nil, edgeID, time.Now().Add(-time.Hour), -time.Second), Rejected, certs.Expired, "valid until"},
		"if the token is not accepted, expect unauthenticated":        {refuses(codes.Unauthenticated, "request authenticate failure"), Unauthenticated, "", "audience \"istio-ca\", and its CLUSTER_ID has to be the cluster ID none"},
		"if it is forbidden, expect refused":                          {refuses(codes.PermissionDenied, "no"), Refused, "", "refused: PermissionDenied: no"},
		"if there is no such service, expect refused":                 {refuses(codes.Unimplemented, "unknown service"), Refused, "", "Unimplemented: unknown service"},
		"if the CA is not ready, expect refused":                      {refuses(codes.Internal, "CSR signing error (Istio CA is not ready)"), Refused, "", "Istio CA is not ready"},
		"if the request is refused with any lifetime, expect refused": {refuses(codes.InvalidArgument, "CSR signing error"), Refused, "", "InvalidArgument: CSR signing error"},
		"if it stays unavailable, expect unavailable":                 {refuses(codes.Unavailable, "shutting down"), Unavailable, "", "shutting down"},
		"if the token is echoed, expect it redacted":                  {refuses(codes.Aborted, "token "+token+"\nrefused "+strings.Repeat("x", 1<<12)), Refused, "", "token [token] refused xxx"},
	} {
		t.Run(name, func(t *testing.T) {
			a := newAuthority(t)
			a.answers(c.answer(a))
			b, err := a.source(t).Bundle(t.Context(), a.request(t))
			require.Error(t, err)
			assert.Nil(t, b)
			assert.Equal(t, c.reason, ReasonOf(err), "%v", err)
			assert.Contains(t, Reasons(), ReasonOf(err))
			assert.Equal(t, c.rejected, certs.ReasonOf(err), "%v", err)
			assert.ErrorContains(t, err, c.message)
			assert.ErrorContains(t, err, "certificate for service account front/edge from "+a.address+": ")
			for _, printed := range []string{err.Error(), fmt.Sprintf("%+v %#v", err, errors.Unwrap(err))} {
				assert.NotContains(t, printed, token)
				assert.NotContains(t, printed, "-----BEGIN")
				assert.Less(t, len(printed), 2000)
			}
		})
	}
}

func TestKeysAreWhatTheMeshAsksFor(t *testing.T) {
	a := newAuthority(t)
	s := a.source(t)
	for name, test := range map[string]struct {
		settings certs.KeySettings
		want     string
	}{
		"if nothing is set, expect P-256":           {certs.KeySettings{}, "ECDSA 256"},
		"if the curve is P384, expect it":           {certs.KeySettings{SignatureAlgorithm: "ECDSA", Curve: "P384"}, "ECDSA 384"},
		"if a size of RSA keys is set, expect it":   {certs.KeySettings{RSASize: "2048"}, "RSA 2048"},
		"if it is a large one, expect it":           {certs.KeySettings{RSASize: "3072"}, "RSA 3072"},
		"if algorithm and size are set, expect EC":  {certs.KeySettings{SignatureAlgorithm: "ECDSA", RSASize: "2048"}, "ECDSA 256"},
		"if the curve alone is set, expect P-256":   {certs.KeySettings{Curve: "P384"}, "ECDSA 256"},
		"if the algorithm alone is set, expect 256": {certs.KeySettings{SignatureAlgorithm: "ECDSA"}, "ECDSA 256"},
	} {
		t.Run(name, func(t *testing.T) {
			r := a.request(t)
			r.Key = test.settings
			b, err := s.Bundle(t.Context(), r)
			require.NoError(t, err)
			asked := a.received()
			block, _ := pem.Decode([]byte(asked[len(asked)-1].Csr))
			csr, err := x509.ParseCertificateRequest(block.Bytes)
			require.NoError(t, err)
			assert.Equal(t, test.want, describeKey(t, csr.PublicKey))
			chain, err := certs.ParseCertificates(b.Chain())
			require.NoError(t, err)
			assert.Equal(t, test.want, describeKey(t, chain[0].PublicKey))
		})
	}

	before := len(a.received())
	r := a.request(t)
	r.Key = certs.KeySettings{SignatureAlgorithm: "ECDSA", Curve: "P521"}
	_, err := s.Bundle(t.Context(), r)
	assert.Equal(t, UnknownKey, ReasonOf(err))
	assert.EqualError(t, err, "certificate for service account front/edge from "+a.address+
		`: unknown-key: ECC_CURVE "P521": want P256 or P384 (correct it in proxyMetadata of Istio's MeshConfig, or in the chart's value mesh)`)
	assert.Len(t, a.received(), before, "nothing was requested")
}

func describeKey(t *testing.T, key any) string {
	t.Helper()
	switch key := key.(type) {
	case *ecdsa.PublicKey:
		return fmt.Sprintf("ECDSA %d", key.Curve.Params().BitSize)
	case *rsa.PublicKey:
		return fmt.Sprintf("RSA %d", key.N.BitLen())
	default:
		require.Fail(t, "unexpected key", "%T", key)
		return ""
	}
}

func TestAuthorityAtAnIPAddressHasAName(t *testing.T) {
	a := newAuthorityWithNames(t, certtest.DNSNames("istiod.istio-system.svc", "istiod-remote.istio-system.svc"))
	s := a.source(t, func(o *Options) { o.Timeout = time.Second })
	r := a.request(t)
	_, err := s.Bundle(t.Context(), r)
	assert.Equal(t, Untrusted, ReasonOf(err))
	assert.ErrorContains(t, err, "from "+a.address+": untrusted: ")
	assert.ErrorContains(t, err, "127.0.0.1")
	assert.ErrorContains(t, err, "(its certificate is for istiod.istio-system.svc, istiod-remote.istio-system.svc: "+
		"set the chart's value mesh.caServerName, or ISTIOD_SAN in proxyMetadata of Istio's MeshConfig, to one of these names)")

	r.CAServerName = "istiod.istio-system.svc"
	_, err = s.Bundle(t.Context(), r)
	require.NoError(t, err, "a new name applies to the address at once")
	r.CAServerName = "istiod.elsewhere.svc"
	_, err = s.Bundle(t.Context(), r)
	assert.ErrorContains(t, err, "not istiod.elsewhere.svc")
}

func TestBundleReportsWhyThereIsNoToken(t *testing.T) {
	accounts := schema.GroupResource{Resource: "serviceaccounts"}
	for name, c := range map[string]struct {
		err     error
		reason  Reason
		message string
	}{
		"if RBAC says no, expect token-forbidden":              {apierrors.NewForbidden(accounts, "edge", errors.New("no role")), TokenForbidden, "isthmus.dev/injection=enabled"},
		"if a policy says no, expect token-forbidden":          {apierrors.NewInvalid(schema.GroupKind{Kind: "TokenRequest"}, "edge", nil), TokenForbidden, "ValidatingAdmissionPolicy"},
		"if there is no such account, expect account-missing":  {apierrors.NewNotFound(accounts, "edge"), AccountMissing, `serviceaccounts "edge" not found (create it`},
		"if the API server is overloaded, expect token-failed": {apierrors.NewTooManyRequests("later", 1), TokenFailed, "later"},
		"if it is gone, expect token-failed":                   {errors.New("connection refused"), TokenFailed, "create a token: connection refused"},
	} {
		t.Run(name, func(t *testing.T) {
			a := newAuthority(t)
			client, _ := tokens(c.err)
			_, err := a.source(t, func(o *Options) { o.Client = client }).Bundle(t.Context(), a.request(t))
			assert.Equal(t, c.reason, ReasonOf(err), "%v", err)
			assert.ErrorContains(t, err, c.message)
			assert.Empty(t, a.received())
		})
	}
	t.Run("if the token is empty, expect token-failed", func(t *testing.T) {
		a := newAuthority(t)
		client := fake.NewClientset()
		client.PrependReactor("create", "serviceaccounts", func(ktesting.Action) (bool, runtime.Object, error) {
			return true, &authenticationv1.TokenRequest{}, nil
		})
		_, err := a.source(t, func(o *Options) { o.Client = client }).Bundle(t.Context(), a.request(t))
		assert.Equal(t, TokenFailed, ReasonOf(err), "%v", err)
	})
}

func TestRefusedLifetimeIsCachedForAnHour(t *testing.T) {
	a := newAuthority(t)
	most := atomic.Int64{}
	most.Store(1800)
	granted := func(_ context.Context, r request) ([]string, error) {
		if r.ValidityDuration > most.Load() {
			return nil, status.Error(codes.InvalidArgument, "too long")
		}
		// It is valid at any time that the clock below returns.
		return a.certify(r, a.root, edgeID, time.Now().Add(-time.Minute), 12*time.Hour)
	}
	a.answers(granted)
	var later time.Duration
	s := a.source(t, func(o *Options) { o.Now = func() time.Time { return time.Now().Add(later) } })
	ask := func(ttl time.Duration) []int64 {
		t.Helper()
		before := len(a.received())
		r := a.request(t)
		r.TTL = ttl
		_, err := s.Bundle(t.Context(), r)
		require.NoError(t, err)
		var asked []int64
		for _, r := range a.received()[before:] {
			asked = append(asked, r.ValidityDuration)
		}
		return asked
	}
	assert.Equal(t, []int64{7200, 0}, ask(2*time.Hour))
	assert.Equal(t, []int64{0}, ask(2*time.Hour))
	assert.Equal(t, []int64{0}, ask(3*time.Hour))
	assert.Equal(t, []int64{3600, 0}, ask(time.Hour), "a shorter one may be allowed")
	assert.Equal(t, []int64{0}, ask(90*time.Minute), "the shortest refused one counts")
	assert.Equal(t, []int64{1800}, ask(30*time.Minute))

	most.Store(7200)
	later = refusalTTL - time.Minute
	assert.Equal(t, []int64{0}, ask(2*time.Hour))
	later = refusalTTL + time.Minute
	assert.Equal(t, []int64{7200}, ask(2*time.Hour), "an hour later it is requested again")

	// A request that fails without a lifetime too did not fail because of it.
	a.answers(func(context.Context, request) ([]string, error) {
		return nil, status.Error(codes.InvalidArgument, "bad")
	})
	r := a.request(t)
	_, err := s.Bundle(t.Context(), r)
	assert.Equal(t, Refused, ReasonOf(err))
	a.answers(granted)
	assert.Equal(t, []int64{3600}, ask(time.Hour))
}

func TestRootsMayChangeDuringACall(t *testing.T) {
	a := newAuthority(t)
	other := certtest.NewAuthority(t).Certificate
	roots := atomic.Pointer[[]*x509.Certificate]{}
	roots.Store(&[]*x509.Certificate{a.root.Certificate})
	s := a.source(t, func(o *Options) { o.Roots = func() ([]*x509.Certificate, error) { return *roots.Load(), nil } })
	entered, proceed := make(chan struct{}), make(chan struct{})
	a.answers(func(ctx context.Context, r request) ([]string, error) {
		close(entered)
		<-proceed
		return a.sign(ctx, r)
	})
	first := make(chan error, 1)
	r := a.request(t)
	go func() {
		_, err := s.Bundle(t.Context(), r)
		first <- err
	}()
	<-entered
	a.answers(a.sign)
	roots.Store(&[]*x509.Certificate{a.root.Certificate, other})
	for range 2 {
		_, err := s.Bundle(t.Context(), a.request(t))
		require.NoError(t, err)
	}
	opened, closed := a.connections()
	assert.Equal(t, 2, opened, "another connection, verified by the new roots")
	assert.Zero(t, closed, "the old one is in use")
	close(proceed)
	require.NoError(t, <-first)
	require.Eventually(t, func() bool { _, closed := a.connections(); return closed == 1 }, 15*time.Second, time.Millisecond)

	roots.Store(&[]*x509.Certificate{other})
	s.options.Timeout = 300 * time.Millisecond
	_, err := s.Bundle(t.Context(), a.request(t))
	assert.Equal(t, Untrusted, ReasonOf(err), "%v", err)
	assert.ErrorContains(t, err, "that the mesh's roots are istiod's")
}

func TestBundleNeedsRoots(t *testing.T) {
	a := newAuthority(t)
	client, specs := tokens(nil)
	for name, c := range map[string]error{
		"if the roots are not known, expect no-roots": errors.New("not read yet"),
		"if there are none, expect no-roots":          nil,
	} {
		t.Run(name, func(t *testing.T) {
			s := a.source(t, func(o *Options) {
				o.Client = client
				o.Roots = func() ([]*x509.Certificate, error) { return nil, c }
			})
			_, err := s.Bundle(t.Context(), a.request(t))
			assert.Equal(t, NoRoots, ReasonOf(err), "%v", err)
			assert.Empty(t, specs(), "no token is created for nothing")
		})
	}
}

func TestBundleRetriesUntilItsTimeout(t *testing.T) {
	a := newAuthority(t)
	a.answers(func(ctx context.Context, _ request) ([]string, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	})
	s := a.source(t, func(o *Options) { o.Timeout = 200 * time.Millisecond })
	_, err := s.Bundle(t.Context(), a.request(t))
	assert.Equal(t, Unavailable, ReasonOf(err), "%v", err)

	// On a busy machine the earlier call may have ended before it arrived.
	ctx, cancel := context.WithCancel(t.Context())
	s = a.source(t)
	before := len(a.received())
	go func() {
		assert.Eventually(t, func() bool { return len(a.received()) > before }, 15*time.Second, time.Millisecond)
		cancel()
	}()
	_, err = s.Bundle(ctx, a.request(t))
	assert.Equal(t, Canceled, ReasonOf(err), "%v", err)

	// An interrupted call is retried.
	var calls atomic.Int32
	a.answers(func(ctx context.Context, r request) ([]string, error) {
		if calls.Add(1) == 1 {
			return nil, status.Error(codes.Unavailable, "interrupted")
		}
		return a.sign(ctx, r)
	})
	_, err = s.Bundle(t.Context(), a.request(t))
	require.NoError(t, err)
	assert.Equal(t, int32(2), calls.Load())
}

func TestCertificateIsValidatedAtTheTimeOfTheAnswer(t *testing.T) {
	a := newAuthority(t)
	r := a.request(t)
	r.Want.Now = time.Now().Add(-time.Hour) // before the certificate is valid
	_, err := a.source(t).Bundle(t.Context(), r)
	require.NoError(t, err)

	r.Want.Now = time.Now()
	slow := a.source(t, func(o *Options) { o.Now = func() time.Time { return time.Now().Add(-time.Hour) } })
	_, err = slow.Bundle(t.Context(), r)
	assert.Equal(t, certs.NotYetValid, certs.ReasonOf(err), "%v", err)
}

func TestInvalidOptionsAndAddressesAreErrors(t *testing.T) {
	client, _ := tokens(nil)
	_, err := New(Options{})
	assert.EqualError(t, err, "istio-ca: no client given")
	_, err = New(Options{Client: client})
	assert.EqualError(t, err, "istio-ca: no roots given")

	a := newAuthority(t)
	s, r := a.source(t), a.request(t)
	for _, address := range []string{"", "istiod", ":15012"} {
		r.CAAddress = address
		_, err = s.Bundle(t.Context(), r)
		assert.Equal(t, Unavailable, ReasonOf(err), "%v", err)
		assert.ErrorContains(t, err, fmt.Sprintf("address %q: want host:port", address))
	}
	s.Close()
	_, err = s.Bundle(t.Context(), a.request(t))
	assert.Equal(t, Unavailable, ReasonOf(err), "%v", err)
	assert.Empty(t, ReasonOf(errors.New("another")))
}
