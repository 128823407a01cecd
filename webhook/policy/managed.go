package policy

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// ControllerName is the name of the controller: of its Deployment and its Lease, of
// the field manager of its writes, and of the reporter of its Events. The field
// manager of Secrets and of the other objects of edges is publish.FieldManager.
const ControllerName = "isthmus-controller"

// IsManaged reports whether an object is managed by Isthmus: whether its label
// ManagedByLabel has the value ManagedBy. Isthmus never changes or deletes an object
// without that label, except a Secret that was adopted with AdoptKey.
func IsManaged(o metav1.Object) bool { return o.GetLabels()[ManagedByLabel] == ManagedBy }
