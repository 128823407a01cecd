package policy

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// IsManaged says whether an object is managed by Isthmus: whether it carries
// ManagedByLabel with the value ManagedBy. Isthmus changes and deletes no object
// without that label, a Secret with AdoptKey excepted.
func IsManaged(o metav1.Object) bool { return o.GetLabels()[ManagedByLabel] == ManagedBy }
