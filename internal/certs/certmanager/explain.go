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

// explainPending says why nothing is issued yet: the conditions of the Certificate, in
// cert-manager's words, and those of the issuer, which a Certificate does not repeat.
func (s *Source) explainPending(ctx context.Context, c *cmapi.Certificate) string {
	var parts []string
	for _, condition := range c.Status.Conditions {
		parts = append(parts, formatCondition(string(condition.Type), condition.Status, condition.Reason, condition.Message))
	}
	slices.Sort(parts) // their order depends on which of cert-manager's controllers was first
	if len(parts) == 0 {
		parts = append(parts, "cert-manager has set no condition yet")
	}
	if issuer := s.explainIssuer(ctx, c.Namespace); issuer != "" {
		parts = append(parts, issuer)
	}
	return fmt.Sprintf("certificate %s/%s: %s", c.Namespace, c.Name, strings.Join(parts, "; "))
}

// explainIssuer says what is wrong with the issuer. It is empty when nothing is, and
// for an issuer of another group or one that must not be read.
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
			return s.issuerName() + ": " + formatCondition("Ready", condition.Status, condition.Reason, condition.Message)
		}
	}
	return ""
}

func formatCondition(condition string, status cmmeta.ConditionStatus, reason, message string) string {
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
