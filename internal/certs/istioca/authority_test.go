package istioca

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"net/url"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/stats"
	pb "istio.io/api/security/v1alpha1"
	authenticationv1 "k8s.io/api/authentication/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	ktesting "k8s.io/client-go/testing"

	"github.com/isthmus-mesh/isthmus/internal/certs"
	"github.com/isthmus-mesh/isthmus/test/framework/certtest"
)

const (
	edgeID = "spiffe://cluster.local/ns/front/sa/edge"
	token  = "eyJ.a-token.for-the-edge"
)

type request struct {
	*pb.IstioCertificateRequest
	headers metadata.MD
}

// answer is what an authority does with a request.
type answer func(context.Context, request) ([]string, error)

// authority is a CA whose answers a test sets.
type authority struct {
	pb.UnimplementedIstioCertificateServiceServer
	root    *certtest.Pair
	address string

	mu       sync.Mutex
	answer   answer
	requests []request
	// opened and closed count connections.
	opened, closed int
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	return newAuthorityWithNames(t, certtest.IPAddresses(net.IPv4(127, 0, 0, 1)))
}

// newAuthorityWithNames is an authority at 127.0.0.1 whose own certificate has these
// names.
func newAuthorityWithNames(t *testing.T, names certtest.Option) *authority {
	t.Helper()
	a := &authority{root: certtest.NewAuthority(t)}
	a.answer = a.sign
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	a.address = listener.Addr().String()
	server := grpc.NewServer(grpc.StatsHandler(a), grpc.Creds(credentials.NewTLS(&tls.Config{
		Certificates: []tls.Certificate{a.root.Leaf(t, names).TLS(t)},
		MinVersion:   tls.VersionTLS12,
	})))
	pb.RegisterIstioCertificateServiceServer(server, a)
	done := make(chan error, 1)
	go func() { done <- server.Serve(listener) }()
	t.Cleanup(func() {
		server.Stop()
		if err := <-done; !errors.Is(err, grpc.ErrServerStopped) {
			require.NoError(t, err)
		}
	})
	return a
}

func (a *authority) CreateCertificate(ctx context.Context, r *pb.IstioCertificateRequest) (*pb.IstioCertificateResponse, error) {
	headers, _ := metadata.FromIncomingContext(ctx)
	received := request{r, headers}
	a.mu.Lock()
	a.requests = append(a.requests, received)
	answer := a.answer
	a.mu.Unlock()
	chain, err := answer(ctx, received)
	if err != nil {
		return nil, err
	}
	return &pb.IstioCertificateResponse{CertChain: chain}, nil
}

// answers sets what answers the requests from now on.
func (a *authority) answers(f answer) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.answer = f
}

func (a *authority) received() []request {
	a.mu.Lock()
	defer a.mu.Unlock()
	return append([]request(nil), a.requests...)
}

// sign answers like istiod.
func (a *authority) sign(_ context.Context, r request) ([]string, error) {
	ttl := time.Duration(r.ValidityDuration) * time.Second
	if ttl == 0 {
		ttl = 10 * time.Minute
	}
	return a.certify(r, a.root, edgeID, time.Now().Add(-2*time.Minute), ttl)
}

// certify signs the key of a request for an identity; the root ends the chain.
func (a *authority) certify(r request, signer *certtest.Pair, id string, from time.Time, ttl time.Duration) ([]string, error) {
	block, _ := pem.Decode([]byte(r.Csr))
	if block == nil {
		return nil, errors.New("the request is no PEM")
	}
	csr, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return nil, err
	}
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		return nil, err
	}
	uri, err := url.Parse(id)
	if err != nil {
		return nil, err
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: serial, URIs: []*url.URL{uri}, NotBefore: from, NotAfter: time.Now().Add(ttl),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}, signer.Certificate, csr.PublicKey, signer.Key)
	if err != nil {
		return nil, err
	}
	return []string{string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})), string(signer.CertificatePEM)}, nil
}

// TagConn implements stats.Handler.
func (a *authority) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }

// TagRPC implements stats.Handler.
func (a *authority) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context { return ctx }

// HandleRPC implements stats.Handler.
func (a *authority) HandleRPC(context.Context, stats.RPCStats) {}

// HandleConn implements stats.Handler.
func (a *authority) HandleConn(_ context.Context, s stats.ConnStats) {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch s.(type) {
	case *stats.ConnBegin:
		a.opened++
	case *stats.ConnEnd:
		a.closed++
	}
}

func (a *authority) connections() (opened, closed int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.opened, a.closed
}

// request is a request that the authority grants.
func (a *authority) request(t *testing.T) certs.Request {
	t.Helper()
	id, err := certs.Identity("cluster.local", "front", "edge")
	require.NoError(t, err)
	return certs.Request{
		Namespace: "front", ServiceAccount: "edge", CAAddress: a.address, TTL: time.Hour,
		Want: certs.Want{ID: id, Roots: []*x509.Certificate{a.root.Certificate}},
	}
}

// source returns a Source that trusts the authority, with changed options.
func (a *authority) source(t *testing.T, change ...func(*Options)) *Source {
	t.Helper()
	client, _ := tokens(nil)
	o := Options{
		Client: client, Patience: 15 * time.Second,
		Roots: func() ([]*x509.Certificate, error) { return []*x509.Certificate{a.root.Certificate}, nil },
	}
	for _, c := range change {
		c(&o)
	}
	s, err := New(o)
	require.NoError(t, err)
	t.Cleanup(s.Close)
	return s
}

// tokens is an API server that creates tokens, or fails with err. specs returns the
// TokenRequestSpecs it received, by namespace/name.
func tokens(err error) (client *fake.Clientset, specs func() map[string]authenticationv1.TokenRequestSpec) {
	var mu sync.Mutex
	received := make(map[string]authenticationv1.TokenRequestSpec)
	client = fake.NewClientset()
	client.PrependReactor("create", "serviceaccounts", func(action ktesting.Action) (bool, runtime.Object, error) {
		create, ok := action.(ktesting.CreateActionImpl)
		if !ok || action.GetSubresource() != "token" || err != nil {
			return true, nil, err
		}
		r, ok := create.Object.(*authenticationv1.TokenRequest)
		if !ok {
			return true, nil, errors.New("not a TokenRequest")
		}
		mu.Lock()
		defer mu.Unlock()
		received[action.GetNamespace()+"/"+create.Name] = r.Spec
		return true, &authenticationv1.TokenRequest{Status: authenticationv1.TokenRequestStatus{Token: token}}, nil
	})
	return client, func() map[string]authenticationv1.TokenRequestSpec {
		mu.Lock()
		defer mu.Unlock()
		return received
	}
}
