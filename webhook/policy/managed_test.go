package policy_test

import (
	"testing"

	"github.com/stretchr/testify/assert"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

func TestIsManagedReadsTheLabelAlone(t *testing.T) {
	for name, test := range map[string]struct {
		object  metav1.ObjectMeta
		managed bool
	}{
		"if the label names Isthmus, expect yes":       {metav1.ObjectMeta{Labels: map[string]string{"app.kubernetes.io/managed-by": "isthmus"}}, true},
		"if the label names another, expect no":        {metav1.ObjectMeta{Labels: map[string]string{"app.kubernetes.io/managed-by": "Helm"}}, false},
		"if there is no label, expect no":              {metav1.ObjectMeta{}, false},
		"if only an annotation names it, expect no":    {metav1.ObjectMeta{Annotations: map[string]string{"app.kubernetes.io/managed-by": "isthmus"}}, false},
		"if it is adopted and not labelled, expect no": {metav1.ObjectMeta{Annotations: map[string]string{policy.AdoptKey: "true"}}, false},
	} {
		t.Run(name, func(t *testing.T) {
			assert.Equal(t, test.managed, policy.IsManaged(&test.object))
		})
	}
}
