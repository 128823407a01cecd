package renewal

import (
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/isthmus-mesh/isthmus/test/framework/certtest"
	"github.com/isthmus-mesh/isthmus/test/framework/environment"
)

// A hundred times somebody deletes or damages the Secret. No check is due for an hour, so
// that the controller's watch alone brings the Secret back, with a new certificate of istiod.
func TestDamageIsRepairedWithinASecond(t *testing.T) {
	leader, err := env.StartController(t.Context(), "--look-interval=1h", "--survey-interval=1h")
	require.NoError(t, err)
	t.Cleanup(leader.Kill)
	ns := env.CreateNamespace(t, nil, "edge")
	id := environment.Identity(t, ns, "edge")
	env.CreateEdge(t, ns, "front", "edge")
	secrets := env.Kube.CoreV1().Secrets(ns)
	watcher, err := secrets.Watch(t.Context(), metav1.ListOptions{FieldSelector: "metadata.name=istio-certs"})
	require.NoError(t, err)
	t.Cleanup(watcher.Stop)
	// awaitGood returns the Secret and the time at which the watch delivered a good version
	// other than the one before.
	awaitGood := func(before string) (*corev1.Secret, time.Time) {
		for timeout := time.After(time.Minute); ; {
			select {
			case e := <-watcher.ResultChan():
				s, ok := e.Object.(*corev1.Secret)
				require.True(t, ok, "%v", e.Object)
				if e.Type != watch.Deleted && s.ResourceVersion != before && environment.ValidateSecret(s, id) == nil {
					return s, time.Now()
				}
			case <-timeout:
				require.Fail(t, "the Secret is not repaired")
			}
		}
	}
	change := func(f func(*corev1.Secret)) func(*corev1.Secret) error {
		return func(s *corev1.Secret) error {
			s.ResourceVersion = "" // whatever was written meanwhile
			f(s)
			_, err := secrets.Update(t.Context(), s, metav1.UpdateOptions{FieldManager: "kubectl-edit"})
			return err
		}
	}
	another := certtest.NewAuthority(t)
	damages := []func(*corev1.Secret) error{
		func(*corev1.Secret) error { return secrets.Delete(t.Context(), "istio-certs", metav1.DeleteOptions{}) },
		change(func(s *corev1.Secret) { s.Data["tls.key"] = another.KeyPEM }),
		change(func(s *corev1.Secret) { s.Data["tls.crt"] = nil }),
		change(func(s *corev1.Secret) { s.Data["root-cert.pem"] = another.CertificatePEM }),
	}
	current, _ := awaitGood("")
	var took []time.Duration
	for i := range 100 {
		before := current.ResourceVersion
		began := time.Now()
		require.NoError(t, damages[i%len(damages)](current.DeepCopy()))
		var at time.Time
		current, at = awaitGood(before)
		took = append(took, at.Sub(began))
	}
	slices.Sort(took)
	t.Logf("repaired after %s (median), %s (99th of 100), %s (last)", took[49], took[98], took[99])
	assert.Less(t, took[98], time.Second, "99 of 100")
	count, err := leader.Metric(t.Context(), "isthmus_secret_repair_duration_seconds_count")
	require.NoError(t, err)
	assert.GreaterOrEqual(t, count, 100.0)
}
