package traffic

import (
	"context"
	"encoding/json"
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

// AwaitFailures waits until n requests through each edge have failed. It returns an error
// if a request succeeds.
func (t *Traffic) AwaitFailures(ctx context.Context, n int) error {
	for _, e := range t.Edges {
		var r *Report
		err := await(ctx, func(ctx context.Context) (err error) {
			if r, err = t.queryCaller(ctx, e, "GET", "report"); err == nil && r.Requests < n {
				err = fmt.Errorf("%d of %d requests have ended", r.Requests, n)
			}
			return err
		})
		if err != nil {
			return fmt.Errorf("edge %s: %w", e.Name, err)
		}
		if r.Failed < r.Requests {
			return fmt.Errorf("edge %s: %d of %d requests were answered, by certificates %v", e.Name, r.Requests-r.Failed, r.Requests, r.Serials)
		}
	}
	return nil
}

// OptIn opts in the edges' namespaces with these annotations, restarts the edges, and
// waits until requests succeed through all of them. Earlier failures do not count.
func (t *Traffic) OptIn(ctx context.Context, annotations map[string]string) error {
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{
		"labels": map[string]string{policy.InjectionLabel: policy.InjectionEnabled}, "annotations": annotations,
	}})
	if err != nil {
		return err
	}
	for _, e := range t.Edges {
		if _, err := t.client.CoreV1().Namespaces().Patch(ctx, e.Namespace, types.MergePatchType, patch, metav1.PatchOptions{}); err != nil {
			return err
		}
		if err := t.RestartEdge(ctx, e); err != nil {
			return err
		}
	}
	return t.awaitAnswers(ctx)
}
