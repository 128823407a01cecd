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

// DefaultAudience is the audience that istiod requires of tokens unless its
// TOKEN_AUDIENCES says otherwise.
const DefaultAudience = "istio-ca"

// tokenSeconds is the lifetime of tokens: the shortest that the API server grants, and
// the longest that the chart's ValidatingAdmissionPolicy allows.
const tokenSeconds int64 = 600

// createToken creates a token of the edge's service account. It is bound to no pod,
// which istiod accepts.
func (s *Source) createToken(ctx context.Context, r certs.Request) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, s.options.Timeout)
	defer cancel()
	seconds := tokenSeconds
	answer, err := s.options.Client.CoreV1().ServiceAccounts(r.Namespace).CreateToken(ctx, r.ServiceAccount, &authenticationv1.TokenRequest{
		Spec: authenticationv1.TokenRequestSpec{Audiences: []string{r.TokenAudience}, ExpirationSeconds: &seconds},
	}, metav1.CreateOptions{})
	switch {
	case err == nil && answer.Status.Token == "":
		return "", newError(r, TokenFailed, errors.New("the API server returned an empty token"))
	case err == nil:
		return answer.Status.Token, nil
	case errors.Is(context.Cause(ctx), context.Canceled):
		return "", newError(r, Canceled, err)
	case apierrors.IsNotFound(err):
		return "", newError(r, AccountMissing, err)
	case apierrors.IsForbidden(err), apierrors.IsInvalid(err):
		// A ValidatingAdmissionPolicy denies with either of the two.
		return "", newError(r, TokenForbidden, err)
	default:
		return "", newError(r, TokenFailed, fmt.Errorf("create a token: %w", err))
	}
}
