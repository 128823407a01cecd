//go:build chaos

package chaos

import (
	"context"
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/isthmus-mesh/isthmus/test/framework/node"
	"github.com/isthmus-mesh/isthmus/test/framework/scrape"
)

// secretName is the name of every Secret here.
const secretName = "istio-certs"

// readSecret reads the Secret of a namespace.
func readSecret(ctx context.Context, namespace string) (*corev1.Secret, error) {
	return cluster.Client.CoreV1().Secrets(namespace).Get(ctx, secretName, metav1.GetOptions{})
}

// checkEvent returns an error until there is an Event about a Secret of a namespace, since a
// moment, with this reason and a text in its note.
func checkEvent(ctx context.Context, namespace, reason string, since time.Time, text string) error {
	list, err := cluster.Client.EventsV1().Events(namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	for _, e := range list.Items {
		if e.Regarding.Kind == "Secret" && e.Reason == reason && e.EventTime.After(since) && strings.Contains(e.Note, text) {
			return nil
		}
	}
	return fmt.Errorf("no Event %s about a Secret with %q in namespace %s", reason, text, namespace)
}

// sumMetric sums a metric over the replicas of a component.
func sumMetric(ctx context.Context, component, name string, labels ...string) (float64, error) {
	api := cluster.Client.CoreV1().Pods(node.Namespace)
	list, err := api.List(ctx, metav1.ListOptions{LabelSelector: componentSelector(component)})
	if err != nil {
		return 0, err
	}
	sum := 0.0
	for i := range list.Items {
		text, err := api.ProxyGet("http", list.Items[i].Name, "8080", "/metrics", nil).DoRaw(ctx)
		if err != nil {
			return 0, fmt.Errorf("metrics of %s: %w", list.Items[i].Name, err)
		}
		n, err := scrape.Sum(string(text), name, labels...)
		if err != nil {
			return 0, err
		}
		sum += n
	}
	return sum, nil
}

// containerRestarts returns the number of restarts of all containers of Isthmus.
func (tr *Trial) containerRestarts() (n int32) {
	tr.Helper()
	for _, component := range []string{webhookComponent, controllerComponent} {
		for _, pod := range tr.replicas(component) {
			for _, c := range pod.Status.ContainerStatuses {
				n += c.RestartCount
			}
		}
	}
	return n
}
