//go:build chaos

package chaos

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// outage is how long etcd and the API server are down: longer than leaders keep their Lease
// without them.
const outage = 15 * time.Second

// The API server crashes, and is restarted.
func TestAPIServerIsRestarted(t *testing.T) {
	trial(t, "API server restarted", func(ctx context.Context, tr *Trial) {
		tr.ExpectRefusedPods("the API server is down")
		require.NoError(tr, cluster.ControlComponent(ctx, "kill", "kube-apiserver"))
		time.Sleep(outage)
		require.NoError(tr, cluster.ControlComponent(ctx, "restart", "kube-apiserver"))
		tr.AwaitRecovery("API server", checkAPIServer)
		tr.AwaitRecovery("all", tr.checkHealthy)
	})
}

// etcd does not answer for a while, and continues.
func TestEtcdIsPaused(t *testing.T) {
	trial(t, "etcd paused", func(ctx context.Context, tr *Trial) {
		tr.ExpectRefusedPods("the API server cannot store anything")
		resume := func() { assert.NoError(tr, cluster.ControlComponent(context.WithoutCancel(ctx), "resume", "etcd")) }
		tr.Cleanup(resume)
		require.NoError(tr, cluster.ControlComponent(ctx, "pause", "etcd"))
		time.Sleep(outage)
		resume()
		tr.AwaitRecovery("API server", checkAPIServer)
		tr.AwaitRecovery("all", tr.checkHealthy)
	})
}

// checkAPIServer returns an error until the API server is ready.
func checkAPIServer(ctx context.Context) error {
	return cluster.Client.CoreV1().RESTClient().Get().AbsPath("/readyz").Do(ctx).Error()
}
