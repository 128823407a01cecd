//go:build e2e

package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"

	"github.com/isthmus-mesh/isthmus/test/framework/traffic"
	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

const (
	// trafficLifetime is the lifetime of the certificates that requests use. The agent renews
	// its certificate after half of it, the controller the Secret after a third. The rest has
	// to cover times without renewals, such as between uninstalling and installing, and the
	// minute that the kubelet may take to update a Secret.
	trafficLifetime = 3 * time.Minute
	// edgeReplicas is the number of replicas of each edge.
	edgeReplicas = 2
)

// startTraffic sends requests through edges that Isthmus does not know yet: all requests
// fail, because the edges have no certificate.
func (i *installationState) startTraffic(ctx context.Context) (err error) {
	i.edges, err = traffic.Deploy(ctx, traffic.Options{Config: cluster.Admin, Replicas: edgeReplicas, Lifetime: trafficLifetime.String(), NotOptedIn: true})
	if err != nil {
		return err
	}
	if err := i.edges.AwaitFailures(ctx, 20); err != nil {
		return err
	}
	for _, e := range i.edges.Edges {
		if err := awaitLog(ctx, e.Namespace, "no certificate to start with"); err != nil {
			return err
		}
	}
	return nil
}

// awaitLog waits until an edge's log holds a text.
func awaitLog(ctx context.Context, namespace, text string) error {
	var log []byte
	err := wait.PollUntilContextTimeout(ctx, time.Second, podTimeout, true, func(ctx context.Context) (bool, error) {
		pods, err := cluster.Client.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{LabelSelector: "app=edge"})
		if err != nil || len(pods.Items) == 0 {
			return false, nil
		}
		log, err = cluster.Client.CoreV1().Pods(namespace).GetLogs(pods.Items[0].Name, &corev1.PodLogOptions{}).DoRaw(ctx)
		return err == nil && strings.Contains(string(log), text), nil
	})
	if err != nil {
		return fmt.Errorf("the log of the edge in %s has no %q, but %q: %w", namespace, text, log, err)
	}
	return nil
}

// optIn labels the namespaces and rolls the edges. After that no request may fail. It
// measures the time from the start of the installation until the first edge was ready.
func (i *installationState) optIn(ctx context.Context) error {
	ready := make(chan error, 1)
	go func() { ready <- i.awaitFirstReadyPod(ctx) }()
	if err := i.edges.OptIn(ctx, map[string]string{policy.CertTTLKey: trafficLifetime.String()}); err != nil {
		return err
	}
	return <-ready
}

// awaitFirstReadyPod waits for an injected pod that is ready.
func (i *installationState) awaitFirstReadyPod(ctx context.Context) error {
	return wait.PollUntilContextTimeout(ctx, 100*time.Millisecond, podTimeout, true, func(ctx context.Context) (bool, error) {
		pods, err := cluster.Client.CoreV1().Pods("").List(ctx, metav1.ListOptions{LabelSelector: policy.InjectedLabel})
		if err != nil || !slices.ContainsFunc(pods.Items, func(pod corev1.Pod) bool { return hasCondition(&pod, corev1.PodReady) }) {
			return false, nil
		}
		measurements.add("install to first injected pod ready", "15 s", "%.1f s", time.Since(i.installStart).Seconds())
		return true, nil
	})
}

// reportTraffic prints a line about all requests since the edges were opted in. It returns
// an error if one failed.
func (i *installationState) reportTraffic(ctx context.Context, w io.Writer) error {
	reports, err := i.edges.Report(ctx)
	if err != nil {
		return err
	}
	var certificates []string
	for name, r := range reports {
		certificates = append(certificates, fmt.Sprintf("%d of edge %s", len(r.Serials), name))
	}
	slices.Sort(certificates)
	total := traffic.Summarize(reports)
	_, _ = fmt.Fprintf(w, "traffic: %d requests, %d failed, longest gap %s, certificates seen: %s\n",
		total.Requests, total.Failed, total.Gap.Round(time.Millisecond), strings.Join(certificates, ", "))
	switch {
	case total.Failed > 0 || len(total.Problems) > 0:
		return fmt.Errorf("requests failed: %s", total)
	case total.Requests == 0:
		return errors.New("no request was sent")
	}
	return nil
}

// Files and Secret are renewed repeatedly, and no request fails.
func TestRotationsFailNoRequest(t *testing.T) {
	t.Parallel()
	const rotations = 2
	for name, want := range map[string]int{"sidecar": edgeReplicas * (1 + rotations), "secret": 1 + rotations} {
		require.Eventually(t, func() bool {
			reports, err := installation.edges.Report(t.Context())
			return err == nil && len(reports[name].Serials) >= want
		}, time.Duration(rotations)*trafficLifetime+podTimeout, time.Second, "%d certificates of edge %s", want, name)
	}
	reports, err := installation.edges.Report(t.Context())
	require.NoError(t, err)
	for _, e := range installation.edges.Edges {
		for _, serial := range reports[e.Name].Serials {
			assert.Equal(t, fmt.Sprintf("spiffe://cluster.local/ns/%s/sa/%s", e.Namespace, e.Account), serial.ID)
		}
		assert.Zero(t, reports[e.Name].Failed, "%v", reports[e.Name].Failures)
	}
}

// The service admits only the edges that it knows: it refuses another identity of the same
// mesh with an equally valid certificate.
func TestOtherIdentitiesAreRefused(t *testing.T) {
	t.Parallel()
	s := newNamespace(t, "other", nil)
	other := inspectorPod("other")
	other.Spec.Containers[0] = corev1.Container{
		Name: "edge", Image: "isthmus.test/edge:dev", ImagePullPolicy: corev1.PullIfNotPresent, SecurityContext: restricted(edgeUID),
		Args:         []string{"--upstream=mesh." + installation.edges.Namespace + ".svc:8443", "--certificates=/etc/istio-certs"},
		VolumeMounts: []corev1.VolumeMount{{Name: "work", MountPath: "/tmp"}},
	}
	other.Spec.Volumes = []corev1.Volume{{Name: "work", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}}
	s.createReady(t, other)
	s.await(t, func(ctx context.Context) error {
		var status int
		body, err := s.Client.CoreV1().RESTClient().Post().Namespace(s.name).Resource("pods").Name("other:8080").SubResource("proxy").Do(ctx).StatusCode(&status).Raw()
		if status != 403 || !strings.Contains(string(body), s.identity("default")) {
			return fmt.Errorf("want status 403 that names %s, got %d %q: %w", s.identity("default"), status, body, err)
		}
		return nil
	})
}
