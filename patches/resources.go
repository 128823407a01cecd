package patches

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// resources follows Istio's rule for its annotations, with one exception: a request
// above the default limit raises the limit, because the API server would refuse the
// pod otherwise.
func (t *SidecarTemplate) resources(p Params) (corev1.ResourceRequirements, error) {
	r := t.Resources.DeepCopy()
	if p.Envoy {
		r = t.Envoy.Resources.DeepCopy()
	}
	for _, o := range []struct {
		list  corev1.ResourceList
		name  corev1.ResourceName
		value string
	}{
		{r.Requests, corev1.ResourceCPU, p.Overrides.CPU},
		{r.Requests, corev1.ResourceMemory, p.Overrides.Memory},
		{r.Limits, corev1.ResourceCPU, p.Overrides.CPULimit},
		{r.Limits, corev1.ResourceMemory, p.Overrides.MemoryLimit},
	} {
		if o.value == "" {
			continue
		}
		q, err := resource.ParseQuantity(o.value)
		if err != nil {
			return *r, fmt.Errorf("%q is not a quantity: %w", o.value, err)
		}
		o.list[o.name] = q
	}
	for _, k := range []struct {
		name           corev1.ResourceName
		request, limit string
	}{
		{corev1.ResourceCPU, p.Overrides.CPU, p.Overrides.CPULimit},
		{corev1.ResourceMemory, p.Overrides.Memory, p.Overrides.MemoryLimit},
	} {
		request, limit := r.Requests[k.name], r.Limits[k.name]
		if request.Cmp(limit) > 0 {
			switch {
			case k.request != "" && k.limit != "":
				return *r, fmt.Errorf("%s request %s is above its limit %s", k.name, k.request, k.limit)
			case k.request != "":
				r.Limits[k.name] = request
			default:
				r.Requests[k.name] = limit
			}
		}
		if p.Guaranteed {
			r.Requests[k.name] = r.Limits[k.name]
		}
	}
	return *r, nil
}
