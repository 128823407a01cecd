//go:build chaos

package chaos

import (
	"context"
	"errors"
	"fmt"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/isthmus-mesh/isthmus/test/stage"
	"github.com/isthmus-mesh/isthmus/test/traffic"
	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

// brief is how long a certificate lives whose agent is to rotate it while a trial
// looks: that happens at half of it.
const brief = "60s"

// own is an edge of a trial's own that carries requests, with the publisher in its
// pods.
type own struct {
	*traffic.Traffic
	edge   traffic.Edge
	ledger *stage.Ledger
}

// publishing deploys such an edge.
func (tr *Trial) publishing(ctx context.Context, replicas int) *own {
	tr.Helper()
	t, err := traffic.Deploy(ctx, traffic.Options{Config: cluster.Admin, Prefix: tr.Namespace, Modes: []string{"sidecar"}, Replicas: replicas, Lifetime: lifetime})
	tr.Cleanup(func() { assert.NoError(tr, t.Remove(context.Background())) })
	require.NoError(tr, err)
	o := &own{Traffic: t, edge: t.Edges[0]}
	patch := fmt.Sprintf(`{"spec": {"template": {"metadata": {"annotations": {%q: "true", %q: %q}}, "spec": {"containers": [{"name": "edge", "resources": {"requests": {"cpu": "10m"}}}]}}}}`,
		policy.PublishKey, policy.CertTTLKey, brief)
	_, err = cluster.Client.AppsV1().Deployments(o.edge.Namespace).Patch(ctx, "edge", types.StrategicMergePatchType, []byte(patch), metav1.PatchOptions{})
	require.NoError(tr, err)
	require.NoError(tr, t.Await(ctx, o.edge.Namespace, "edge"))
	o.ledger = tr.Follow(o.edge.Namespace, o.edge.Account)
	tr.await("the publisher writes", func(context.Context) error {
		if err := standing(o.ledger, ""); err != nil {
			return err
		}
		if source := o.ledger.Current().Annotations[policy.SourceKey]; source != "agent" {
			return fmt.Errorf("the Secret is of source %q", source)
		}
		return nil
	})
	require.NoError(tr, t.Reset(ctx))
	return o
}

// judge adds what was lost through this edge to the trial's row.
func (o *own) judge(tr *Trial) {
	tr.Helper()
	reports, err := o.Report(context.WithoutCancel(tr.Context()))
	require.NoError(tr, err)
	v := traffic.Judge(reports)
	tr.row.requests += v.Requests
	tr.row.failed += v.Failed
	tr.row.gap = max(tr.row.gap, v.Gap)
	for _, r := range reports {
		tr.row.certificates += len(r.Serials)
	}
	assert.NotZero(tr, v.Requests)
	if tr.mayLose == "" {
		assert.Zero(tr, v.Failed, "requests through the trial's own edge: %s", v)
	} else {
		tr.Logf("requests may fail: %s\n%s", tr.mayLose, v)
	}
}

// pods lists the edge's pods.
func (o *own) pods(ctx context.Context) ([]corev1.Pod, error) {
	list, err := cluster.Client.CoreV1().Pods(o.edge.Namespace).List(ctx, metav1.ListOptions{LabelSelector: "app=edge"})
	if err == nil && len(list.Items) == 0 {
		err = errors.New("no edge pods in namespace " + o.edge.Namespace)
	}
	return list.Items, err
}
