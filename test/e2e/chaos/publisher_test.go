//go:build chaos

package chaos

import (
	"context"
	"fmt"

	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/isthmus-mesh/isthmus/patches"
)

// The publishers of an edge are killed, one after the other: its pod is out of the Service
// until a new publisher runs, and the other pod serves.
func publisherKilled(ctx context.Context, tr *Trial) {
	e := tr.deployPublishingEdge(ctx, 2)
	pods, err := e.pods(ctx)
	require.NoError(tr, err)
	for i := range pods {
		killed := runningContainerID(&pods[i], patches.PublisherName)
		require.NoError(tr, cluster.KillContainer(ctx, killed))
		tr.AwaitRecovery("publisher", func(ctx context.Context) error {
			pod, err := cluster.Client.CoreV1().Pods(pods[i].Namespace).Get(ctx, pods[i].Name, metav1.GetOptions{})
			if err == nil && (runningContainerID(pod, patches.PublisherName) == killed || !isPodReady(pod)) {
				err = fmt.Errorf("pod %s/%s has the publisher that was killed, or is not ready", pod.Namespace, pod.Name)
			}
			return err
		})
	}
	e.awaitRotation(tr, "next certificate")
	e.recordTraffic(tr)
}
