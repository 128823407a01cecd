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

// issue sends a certificate request and returns the chain as PEM, the leaf first. If
// the authority refuses the lifetime, the request is sent again without one.
func (s *Source) issue(ctx context.Context, c *connection, r certs.Request, csr []byte, token string) ([]byte, error) {
	ttl := r.TTL
	if s.limits.refuses(r.CAAddress, ttl, s.options.Now()) {
		ttl = 0
	}
	chain, err := s.createCertificate(ctx, c, r, csr, token, ttl)
	if ttl <= 0 || !refusesLifetime(err) {
		return chain, s.callError(ctx, c, r, token, err)
	}
	refusal := err
	if chain, err = s.createCertificate(ctx, c, r, csr, token, 0); err != nil {
		return nil, s.callError(ctx, c, r, token, err)
	}
	s.limits.add(r.CAAddress, ttl, s.options.Now())
	s.options.Log.Info("the certificate authority refuses the lifetime and chooses one itself",
		"address", r.CAAddress, "asked", ttl.String(), "answer", sanitize(status.Convert(refusal).Message(), token))
	return chain, nil
}

// createCertificate makes one call, which gRPC may retry. A lifetime of zero requests
// the authority's default.
func (s *Source) createCertificate(ctx context.Context, c *connection, r certs.Request, csr []byte, token string, ttl time.Duration) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, s.options.Timeout)
	defer cancel()
	// Istio's agent sends these headers (security/pkg/nodeagent/caclient).
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

// refusesLifetime reports whether an error may be the refusal of a lifetime above
// MAX_WORKLOAD_CERT_TTL. istiod answers InvalidArgument, "CSR signing error (requested
// TTL 2h0m0s is greater than the max allowed TTL 1h0m0s)" (security/pkg/pki/ca). Only
// the code is checked: Istio does not promise the text, and another call is cheap.
func refusesLifetime(err error) bool { return status.Code(err) == codes.InvalidArgument }

// callError returns the *Error for the error of a call, nil for nil.
func (s *Source) callError(ctx context.Context, c *connection, r certs.Request, token string, err error) error {
	if err == nil {
		return nil
	}
	answer := status.Convert(err)
	cause := fmt.Errorf("%s: %s", answer.Code(), sanitize(answer.Message(), token))
	switch answer.Code() {
	case codes.Unauthenticated:
		return newError(r, Unauthenticated, cause)
	case codes.Canceled, codes.Unavailable, codes.DeadlineExceeded:
		return c.unavailable(ctx, r, cause)
	default:
		return newError(r, Refused, cause)
	}
}

// sanitize removes the token from a server's text and limits its length, because the
// text ends up in logs.
func sanitize(text, token string) string {
	const maxLength = 400
	text = strings.ToValidUTF8(strings.ReplaceAll(text, token, "[token]"), "?")
	text = strings.Join(strings.Fields(text), " ")
	if len(text) > maxLength {
		text = strings.ToValidUTF8(text[:maxLength], "") + "..."
	}
	return text
}

// isVerificationError reports whether a handshake failed because of the server's
// certificate.
func isVerificationError(err error) bool {
	var unknownAuthority x509.UnknownAuthorityError
	var hostname x509.HostnameError
	var invalid x509.CertificateInvalidError
	return errors.As(err, &unknownAuthority) || errors.As(err, &hostname) || errors.As(err, &invalid)
}
