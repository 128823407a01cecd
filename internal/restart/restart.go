// Package restart restarts stale workloads that request it: one at a time in the
// whole cluster, and the next only when the previous one is rolled out with the
// current template.
//
// It observes a workload, decides with pure functions (decide*.go), and acts.
package restart

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/client-go/kubernetes"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/isthmus-mesh/isthmus/internal/events"
	"github.com/isthmus-mesh/isthmus/webhook/inject"
	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

// fieldManager is the field manager of all writes.
const fieldManager = policy.ControllerName

// Options configure a Restarter. Every field without a default is required.
type Options struct {
	// Kube reads and patches workloads, and reads and writes the ConfigMap
	// ConfigMapName.
	Kube kubernetes.Interface
	// Pods reads pods from the API server, past any cache.
	Pods client.Reader
	// ReadNamespace returns the labels and annotations of a namespace, and whether it
	// is opted in.
	ReadNamespace func(ctx context.Context, name string) (ns policy.Namespace, enabled bool, err error)
	// Engine decides whether a pod is stale and what a new pod would get.
	Engine *inject.Engine
	// Events records Events.
	Events *events.Recorder
	// Registerer receives the metrics.
	Registerer prometheus.Registerer
	// Log receives errors, and the messages that are not Events.
	Log logr.Logger
	// Ready returns nil once the mesh's settings are known. Nothing is restarted
	// before.
	Ready func() error
	// Namespace is the release's: it holds the ConfigMap ConfigMapName, which the
	// chart creates, and the Deployments of the webhook and the controller.
	Namespace string
	// Timeout is how long a rollout may take before an Event reports it. Nothing else
	// is restarted until it is complete, however long that takes. Default 15 minutes.
	Timeout time.Duration
	// Settle is how long a template must have been current, and every replica of the
	// webhook must have served it, before anything is restarted for it. Default one
	// minute.
	Settle time.Duration
	// Interval is the time between two checks of the rollout that is under way, and
	// between two searches for the next workload. Default 5 seconds.
	Interval time.Duration
	// CheckWebhook returns nil when every replica of the webhook injects what Engine
	// injects. Default: the function CheckWebhook, for Namespace.
	CheckWebhook func(ctx context.Context) error
	// Clock defaults to the real one.
	Clock clock.PassiveClock
}

// The defaults of Options.
const (
	DefaultTimeout  = 15 * time.Minute
	DefaultSettle   = time.Minute
	defaultInterval = 5 * time.Second
)

func (o Options) withDefaults() Options {
	o.Timeout = cmp.Or(o.Timeout, DefaultTimeout)
	o.Settle = cmp.Or(o.Settle, DefaultSettle)
	o.Interval = cmp.Or(o.Interval, defaultInterval)
	if o.CheckWebhook == nil {
		o.CheckWebhook = CheckWebhook(o.Kube, o.Namespace)
	}
	if o.Clock == nil {
		o.Clock = clock.RealClock{}
	}
	return o
}

func (o Options) validate() error {
	var errs []error
	for _, field := range []struct {
		name    string
		missing bool
	}{
		{"client", o.Kube == nil}, {"reader of pods", o.Pods == nil}, {"reader of namespaces", o.ReadNamespace == nil},
		{"engine", o.Engine == nil}, {"recorder of Events", o.Events == nil}, {"registerer", o.Registerer == nil},
		{"readiness", o.Ready == nil}, {"namespace for the ConfigMap " + ConfigMapName, o.Namespace == ""},
	} {
		if field.missing {
			errs = append(errs, fmt.Errorf("restart: no %s given", field.name))
		}
	}
	return errors.Join(errs...)
}
