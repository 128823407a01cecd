package certmanager

import (
	"context"
	"fmt"
	"slices"
	"strings"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	cmmeta "github.com/cert-manager/cert-manager/pkg/apis/meta/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// explain says why nothing is issued yet: the Certificate's conditions, in
// cert-manager's words, and what is wrong with the issuer, which a Certificate
// does not say.
func (s *Source) explain(ctx context.Context, c *cmapi.Certificate) string {
	why := fmt.Sprintf("certificate %s/%s", c.Namespace, c.Name)
	var parts []string
	for _, condition := range c.Status.Conditions {
		parts = append(parts, say(string(condition.Type), condition.Status, condition.Reason, condition.Message))
	}
	slices.Sort(parts) // they come in the order in which controllers were done
	if len(parts) == 0 {
		parts = append(parts, "cert-manager has not looked at it")
	}
	if issuer := s.explainIssuer(ctx, c.Namespace); issuer != "" {
		parts = append(parts, issuer)
	}
	return why + ": " + strings.Join(parts, "; ")
}

// explainIssuer says what is wrong with the issuer. It is a courtesy: an issuer
// of another group, or one that we may not read, is not spoken of.
func (s *Source) explainIssuer(ctx context.Context, namespace string) string {
	if s.issuer.Group != cmapi.SchemeGroupVersion.Group {
		return ""
	}
	resource := cmapi.SchemeGroupVersion.WithResource("issuers")
	if s.issuer.Kind == cmapi.ClusterIssuerKind {
		resource, namespace = cmapi.SchemeGroupVersion.WithResource("clusterissuers"), ""
	}
	found, err := s.dynamic.Resource(resource).Namespace(namespace).Get(ctx, s.issuer.Name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return "there is no " + s.issuerName()
	}
	issuer := &cmapi.Issuer{} // a ClusterIssuer has the same fields
	if err != nil || runtime.DefaultUnstructuredConverter.FromUnstructured(found.Object, issuer) != nil {
		return ""
	}
	for _, condition := range issuer.Status.Conditions {
		if condition.Type == cmapi.IssuerConditionReady && condition.Status != cmmeta.ConditionTrue {
			return s.issuerName() + ": " + say("Ready", condition.Status, condition.Reason, condition.Message)
		}
	}
	return ""
}

func say(condition string, status cmmeta.ConditionStatus, reason, message string) string {
	return fmt.Sprintf("%s is %s, %s: %s", condition, status, reason, message)
}

func (s *Source) issuerName() string { return fmt.Sprintf("%s %q", s.issuer.Kind, s.issuer.Name) }

func isIssuing(c *cmapi.Certificate) bool {
	for _, condition := range c.Status.Conditions {
		if condition.Type == cmapi.CertificateConditionIssuing && condition.Status == cmmeta.ConditionTrue {
			return true
		}
	}
	return false
}
