package istioca

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	pb "istio.io/api/security/v1alpha1"

	"github.com/isthmus-mesh/isthmus/internal/certs"
)

// issue has a request certified and returns the chain as PEM, the leaf first.
func (s *Source) issue(ctx context.Context, c *connection, r certs.Request, csr []byte, token string) ([]byte, error) {
	ttl := r.TTL
	if s.limits.refuses(r.CAAddress, ttl, s.options.Now()) {
		ttl = 0
	}
	chain, err := s.call(ctx, c, r, csr, token, ttl)
	if ttl <= 0 || !refusesLifetime(err) {
		return chain, s.explain(ctx, c, r, token, err)
	}
	refusal := err
	if chain, err = s.call(ctx, c, r, csr, token, 0); err != nil {
		return nil, s.explain(ctx, c, r, token, err)
	}
	s.limits.remember(r.CAAddress, ttl, s.options.Now())
	s.options.Log.Info("the certificate authority refuses the lifetime, it is left to its choice",
		"address", r.CAAddress, "asked", ttl.String(), "answer", clean(status.Convert(refusal).Message(), token))
	return chain, nil
}

// call asks once. A lifetime of zero is the authority's default.
func (s *Source) call(ctx context.Context, c *connection, r certs.Request, csr []byte, token string, ttl time.Duration) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, s.options.Timeout)
	defer cancel()
	// These are the names that Istio's agent sends
	// (security/pkg/nodeagent/caclient).
	ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+token)
	if r.ClusterID != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, "clusterid", r.ClusterID)
	}
	answer, err := c.client.CreateCertificate(ctx, &pb.IstioCertificateRequest{
		Csr:              string(csr),
		ValidityDuration: int64(math.Ceil(ttl.Seconds())),
	})
	if err != nil {
		return nil, err
	}
	var chain bytes.Buffer
	for _, part := range answer.GetCertChain() {
		chain.WriteString(strings.TrimSpace(part))
		chain.WriteByte('\n')
	}
	return chain.Bytes(), nil
}

// refusesLifetime says whether an answer may be the refusal of a lifetime above
// MAX_WORKLOAD_CERT_TTL. istiod answers InvalidArgument, "CSR signing error
// (requested TTL 2h0m0s is greater than the max allowed TTL 1h0m0s)"
// (security/pkg/pki/ca). The text is nobody's promise, and asking once more is
// cheap, so only the code is looked at.
func refusesLifetime(err error) bool { return status.Code(err) == codes.InvalidArgument }

// explain makes an *Error of what a call ended with.
func (s *Source) explain(ctx context.Context, c *connection, r certs.Request, token string, err error) error {
	if err == nil {
		return nil
	}
	answer := status.Convert(err)
	said := fmt.Errorf("%s: %s", answer.Code(), clean(answer.Message(), token))
	switch answer.Code() {
	case codes.Unauthenticated:
		return problem(r, Unauthenticated, said)
	case codes.Canceled:
		if errors.Is(context.Cause(ctx), context.Canceled) {
			return problem(r, Canceled, said)
		}
		return problem(r, Unavailable, said)
	case codes.Unavailable, codes.DeadlineExceeded:
		if distrust := c.distrust(); distrust != nil {
			return problem(r, Untrusted, distrust)
		}
		return problem(r, Unavailable, said)
	default:
		return problem(r, Refused, said)
	}
}

// clean keeps a server's text from carrying the token into logs, and from
// filling them.
func clean(text, token string) string {
	const most = 400
	text = strings.ToValidUTF8(strings.ReplaceAll(text, token, "[token]"), "?")
	text = strings.Join(strings.Fields(text), " ")
	if len(text) > most {
		text = strings.ToValidUTF8(text[:most], "") + "..."
	}
	return text
}

// isDistrust says whether a handshake failed because of the server's
// certificate.
func isDistrust(err error) bool {
	var authority x509.UnknownAuthorityError
	var host x509.HostnameError
	var invalid x509.CertificateInvalidError
	return errors.As(err, &authority) || errors.As(err, &host) || errors.As(err, &invalid)
}
