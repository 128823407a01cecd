package istioca

import (
	"context"
	"errors"
	"fmt"

	authenticationv1 "k8s.io/api/authentication/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/isthmus-mesh/isthmus/internal/certs"
)

// DefaultAudience is the audience that istiod wants tokens to have unless its
// TOKEN_AUDIENCES says otherwise.
const DefaultAudience = "istio-ca"

// tokenSeconds is how long tokens are valid: the least that the API server
// grants. The chart's ValidatingAdmissionPolicy allows no more.
const tokenSeconds int64 = 600

// token makes a token of the edge's service account. It is bound to no pod:
// istiod accepts that.
func (s *Source) token(ctx context.Context, r certs.Request) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, s.options.Timeout)
	defer cancel()
	seconds := tokenSeconds
	answer, err := s.options.Client.CoreV1().ServiceAccounts(r.Namespace).CreateToken(ctx, r.ServiceAccount, &authenticationv1.TokenRequest{
		Spec: authenticationv1.TokenRequestSpec{Audiences: []string{r.TokenAudience}, ExpirationSeconds: &seconds},
	}, metav1.CreateOptions{})
	switch {
	case err == nil && answer.Status.Token == "":
		return "", problem(r, TokenFailed, errors.New("the API server answered without a token"))
	case err == nil:
		return answer.Status.Token, nil
	case errors.Is(context.Cause(ctx), context.Canceled):
		return "", problem(r, Canceled, err)
	case apierrors.IsNotFound(err):
		return "", problem(r, AccountMissing, err)
	case apierrors.IsForbidden(err), apierrors.IsInvalid(err):
		// A ValidatingAdmissionPolicy denies with either.
		return "", problem(r, TokenForbidden, err)
	default:
		return "", problem(r, TokenFailed, fmt.Errorf("ask the API server for a token: %w", err))
	}
}
