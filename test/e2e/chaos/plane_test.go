//go:build chaos

package chaos

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// away is how long etcd and the API server are away: longer than leaders go on
// without them.
const away = 15 * time.Second

// The API server crashes, and is started again.
func TestAPIServerRestarted(t *testing.T) {
	trial(t, "API server restarted", func(ctx context.Context, tr *Trial) {
		tr.MayWait("nobody answers")
		require.NoError(tr, cluster.ControlComponent(ctx, "kill", "kube-apiserver"))
		time.Sleep(away)
		require.NoError(tr, cluster.ControlComponent(ctx, "restart", "kube-apiserver"))
		tr.Heal("API server", answers)
		tr.Heal("all", tr.whole)
	})
}

// etcd does not answer, and goes on where it was.
func TestEtcdPaused(t *testing.T) {
	trial(t, "etcd paused", func(ctx context.Context, tr *Trial) {
		tr.MayWait("the API server cannot store anything")
		resume := func() { assert.NoError(tr, cluster.ControlComponent(context.WithoutCancel(ctx), "resume", "etcd")) }
		tr.Cleanup(resume)
		require.NoError(tr, cluster.ControlComponent(ctx, "pause", "etcd"))
		time.Sleep(away)
		resume()
		tr.Heal("API server", answers)
		tr.Heal("all", tr.whole)
	})
}

// answers says whether the API server is ready.
func answers(ctx context.Context) error {
	return cluster.Client.CoreV1().RESTClient().Get().AbsPath("/readyz").Do(ctx).Error()
}
