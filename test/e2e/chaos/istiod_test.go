//go:build chaos

package chaos

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/isthmus-mesh/isthmus/patches"
	"github.com/isthmus-mesh/isthmus/test/framework/node"
	"github.com/isthmus-mesh/isthmus/test/framework/traffic"
)

// istiodSelector selects the Deployment and the pods of istiod.
const istiodSelector = "app=istiod"

// istiod is down until both an agent and the controller have failed to renew a certificate:
// their current certificates stay in use, and they retry.
func TestIstiodIsDownDuringRenewals(t *testing.T) {
	trial(t, "istiod down during renewals", func(ctx context.Context, tr *Trial) {
		files, secret := edges.Edges[0], edges.Edges[1]
		before := tr.secretVersions()
		tr.Cleanup(func() {
			require.NoError(tr, scale(context.Background(), node.IstioNamespace, istiodSelector, 1), "the other trials need istiod")
		})
		tr.scale(node.IstioNamespace, istiodSelector, 0)
		tr.await("no istiod is left", func(ctx context.Context) error {
			list, err := cluster.Client.CoreV1().Pods(node.IstioNamespace).List(ctx, metav1.ListOptions{LabelSelector: istiodSelector})
			if err == nil && len(list.Items) > 0 {
				err = fmt.Errorf("pod %s still exists", list.Items[0].Name)
			}
			return err
		})
		outageStart := time.Now()
		tr.await("the controller fails to renew", func(ctx context.Context) error {
			return checkEvent(ctx, secret.Namespace, "Failed", outageStart, "istiod")
		})
		tr.await("an agent fails to renew", func(ctx context.Context) error {
			return checkLog(ctx, files, patches.SidecarName, outageStart, "failed to get certificate")
		})
		reports, err := edges.Report(ctx)
		require.NoError(tr, err)
		shown := len(reports[files.Name].Serials)

		tr.scale(node.IstioNamespace, istiodSelector, 1)
		outageEnd := time.Now()
		tr.AwaitRecovery("istiod", tr.checkHealthy)
		tr.AwaitRecovery("Secrets", func(context.Context) error { return checkSecretsReplaced(before) })
		tr.AwaitRecovery("files", func(ctx context.Context) error {
			reports, err := edges.Report(ctx)
			if err == nil && len(reports[files.Name].Serials) <= shown {
				err = fmt.Errorf("edge %s has presented %d certificates", files.Name, shown)
			}
			return err
		})
		tr.Logf("istiod was down for %s", outageEnd.Sub(outageStart).Round(time.Second))
	})
}

// checkLog returns an error until a container of any pod of an edge has logged a text since
// a moment.
func checkLog(ctx context.Context, edge traffic.Edge, container string, since time.Time, text string) error {
	api := cluster.Client.CoreV1().Pods(edge.Namespace)
	list, err := api.List(ctx, metav1.ListOptions{LabelSelector: "app=edge"})
	if err != nil {
		return err
	}
	for i := range list.Items {
		from := metav1.NewTime(since)
		log, err := api.GetLogs(list.Items[i].Name, &corev1.PodLogOptions{Container: container, SinceTime: &from}).DoRaw(ctx)
		if err != nil {
			return err
		}
		if strings.Contains(string(log), text) {
			return nil
		}
	}
	return fmt.Errorf("%s of edge %s has not logged %q", container, edge.Name, text)
}
