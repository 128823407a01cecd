//go:build chaos

package chaos

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"

	"github.com/isthmus-mesh/isthmus/test/framework/environment"
	"github.com/isthmus-mesh/isthmus/test/framework/pods"
	"github.com/isthmus-mesh/isthmus/test/framework/scrape"
	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

// rolledPods is the number of edge pods that are rolled. Of them, publisherPods have the
// sidecar and the publisher, and write one Secret together; the others have no container of
// Isthmus. A node with the kernel's default settings cannot run more sidecars. The kernel
// allows each user 128 inotify instances (fs.inotify.max_user_instances). All agents and
// publishers run as user 1337. An agent takes two instances and ends if there is none; a
// publisher takes one if one is free.
const rolledPods, publisherPods = 200, 50

// rolledWorkload is one of the workloads, in a namespace of its own.
type rolledWorkload struct {
	namespace string
	mode      string
	replicas  int32
	history   *environment.SecretHistory
}

// Two workloads with 200 edges in total are rolled at the same time. The edges do nothing and
// request few resources, so that they all run on one node with two CPUs. The pods that they
// replace are unschedulable, so that the node starts 200 pods and not 400.
func TestManyEdgesAreRolledAtOnce(t *testing.T) {
	trial(t, fmt.Sprintf("%d edge pods rolled at once", rolledPods), func(ctx context.Context, tr *Trial) {
		workloads := []*rolledWorkload{
			{namespace: tr.Namespace + "-rolled", mode: "secret", replicas: rolledPods - publisherPods},
			{namespace: tr.Namespace + "-publishers", mode: "sidecar", replicas: publisherPods},
		}
		tr.createNamespace(workloads[0].namespace, map[string]string{policy.InjectionLabel: policy.InjectionEnabled}, nil)
		tr.createNamespace(workloads[1].namespace, map[string]string{policy.InjectionLabel: policy.InjectionEnabled}, publishingAnnotations)
		for _, w := range workloads {
			w.history = tr.WatchSecret(w.namespace, "default")
			_, err := cluster.Client.AppsV1().Deployments(w.namespace).Create(ctx, w.deployment(), metav1.CreateOptions{})
			require.NoError(tr, err)
		}
		each := func(check func(context.Context, *rolledWorkload) error) func(context.Context) error {
			return func(ctx context.Context) error {
				var errs error
				for _, w := range workloads {
					errs = errors.Join(errs, check(ctx, w))
				}
				return errs
			}
		}
		tr.await("the pods to replace exist", each(func(ctx context.Context, w *rolledWorkload) error { return w.checkPodCount(ctx, "true") }))
		before, err := readServerLoad(ctx)
		require.NoError(tr, err)

		for _, w := range workloads {
			_, err = cluster.Client.AppsV1().Deployments(w.namespace).Patch(ctx, "rolled", types.MergePatchType,
				[]byte(`{"spec": {"template": {"spec": {"nodeSelector": null}}}}`), metav1.PatchOptions{})
			require.NoError(tr, err)
		}
		tr.AwaitRecovery("created", each(func(ctx context.Context, w *rolledWorkload) error { return w.checkPodCount(ctx, "") }))
		tr.AwaitRecovery("ready", each(func(ctx context.Context, w *rolledWorkload) error {
			return checkReady(ctx, w.namespace, "rolled", true)
		}))

		after, err := readServerLoad(ctx)
		require.NoError(tr, err)
		tr.Logf("%s", after.difference(before))
		for _, w := range workloads {
			versions, serials := w.history.Versions(), w.history.Serials()
			assert.NotEmpty(tr, serials)
			assert.Empty(tr, w.history.UnneededWrites(), "writes of the Secret of %d edges", w.replicas)
			tr.Logf("%d edges: %d certificates in the Secret, %d writes", w.replicas, len(serials), len(versions))
		}

		// The next edge needs the inotify instances of these agents.
		agents := workloads[1].namespace
		require.NoError(tr, cluster.Client.AppsV1().Deployments(agents).Delete(ctx, "rolled", metav1.DeleteOptions{}))
		tr.AwaitRecovery("gone", func(ctx context.Context) error {
			list, err := cluster.Client.CoreV1().Pods(agents).List(ctx, metav1.ListOptions{})
			if err == nil && len(list.Items) > 0 {
				err = fmt.Errorf("%d pods are left in namespace %s", len(list.Items), agents)
			}
			return err
		})
	})
}

// deployment returns the workload before it is rolled: its pods are unschedulable.
func (w *rolledWorkload) deployment() *appsv1.Deployment {
	edge := pods.Edge("rolled")
	edge.Annotations[policy.ModeKey] = w.mode
	if w.mode == "sidecar" {
		edge.Annotations["sidecar.istio.io/proxyCPU"], edge.Annotations["sidecar.istio.io/proxyMemory"] = "1m", "16Mi"
	}
	edge.Spec.AutomountServiceAccountToken = ptr.To(false)
	edge.Spec.NodeSelector = map[string]string{"isthmus.test/nowhere": "true"}
	edge.Spec.Containers[0].Resources.Requests = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("1m"), corev1.ResourceMemory: resource.MustParse("1Mi")}
	d := pods.Deployment(edge, w.replicas)
	d.Spec.Strategy = appsv1.DeploymentStrategy{RollingUpdate: &appsv1.RollingUpdateDeployment{MaxUnavailable: ptr.To(intstr.FromString("100%")), MaxSurge: ptr.To(intstr.FromInt32(0))}}
	return d
}

// checkPodCount returns an error until all of the workload's pods exist; unschedulable is
// the value of the node selector that keeps them off the node, or "".
func (w *rolledWorkload) checkPodCount(ctx context.Context, unschedulable string) error {
	list, err := cluster.Client.CoreV1().Pods(w.namespace).List(ctx, metav1.ListOptions{LabelSelector: "app=rolled"})
	if err != nil {
		return err
	}
	n, notInjected := 0, 0
	for i := range list.Items {
		p := &list.Items[i]
		if p.DeletionTimestamp != nil || p.Spec.NodeSelector["isthmus.test/nowhere"] != unschedulable {
			continue
		}
		n++
		if p.Labels[policy.InjectedLabel] == "" {
			notInjected++
		}
	}
	if notInjected > 0 || n != int(w.replicas) {
		return fmt.Errorf("%d of %d pods of namespace %s exist, %d of them without an injection", n, w.replicas, w.namespace, notInjected)
	}
	return nil
}

// serverLoad is the work that webhook and controller have done until a point in time.
type serverLoad struct {
	reviews, seconds, slow, rejected float64
	controller                       float64
	memory                           map[string]float64
	at                               time.Time
}

func readServerLoad(ctx context.Context) (b serverLoad, err error) {
	text, err := cluster.Client.CoreV1().RESTClient().Get().AbsPath("/metrics").DoRaw(ctx)
	if err != nil {
		return b, err
	}
	b.at, b.memory = time.Now(), map[string]float64{}
	const admission = "apiserver_admission_webhook_admission_duration_seconds"
	name := `name="namespace.isthmus.dev"`
	var errs [4]error
	b.reviews, errs[0] = scrape.Sum(string(text), admission+"_count", name)
	b.seconds, errs[1] = scrape.Sum(string(text), admission+"_sum", name)
	b.slow, errs[2] = scrape.Sum(string(text), admission+"_bucket", name, `le="1"`)
	b.rejected, errs[3] = scrape.Sum(string(text), "apiserver_admission_webhook_rejection_count", name)
	if err := errors.Join(errs[:]...); err != nil {
		return b, err
	}
	for _, component := range []string{webhookComponent, controllerComponent} {
		if b.memory[component], err = sumMetric(ctx, component, "process_resident_memory_bytes"); err != nil {
			return b, err
		}
	}
	b.controller, err = sumMetric(ctx, controllerComponent, "process_cpu_seconds_total")
	return b, err
}

func (s serverLoad) difference(before serverLoad) string {
	n := s.reviews - before.reviews
	return fmt.Sprintf("%.0f reviews in %s, %.1f ms each at the API server, %.0f above 1 s, %.0f rejected; controllers: %.2f s of CPU, %.0f MiB together; webhooks: %.0f MiB together",
		n, s.at.Sub(before.at).Round(time.Second), 1000*(s.seconds-before.seconds)/max(n, 1), n-(s.slow-before.slow), s.rejected-before.rejected,
		s.controller-before.controller, s.memory[controllerComponent]/(1<<20), s.memory[webhookComponent]/(1<<20))
}
