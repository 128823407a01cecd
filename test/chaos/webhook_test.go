//go:build chaos

package chaos

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/isthmus-mesh/isthmus/test/node"
)

func TestWebhookReplicaKilled(t *testing.T) {
	trial(t, "webhook replica killed", func(ctx context.Context, tr *Trial) {
		for range 3 {
			victim := component(tr, "webhook")[0]
			require.NoError(tr, cluster.KillContainer(ctx, victim.Status.ContainerStatuses[0].ContainerID))
			time.Sleep(2 * time.Second)
			tr.Heal("both serve", tr.whole)
		}
	})
}

// component lists the ready pods of Isthmus' webhook or controller.
func component(tr *Trial, name string) []corev1.Pod {
	tr.Helper()
	list, err := cluster.Client.CoreV1().Pods(node.Namespace).List(tr.Context(), metav1.ListOptions{LabelSelector: "app.kubernetes.io/component=" + name})
	require.NoError(tr, err)
	return list.Items
}
