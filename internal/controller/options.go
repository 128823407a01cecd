package controller

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/utils/clock"

	"github.com/isthmus-mesh/isthmus/internal/certs"
	"github.com/isthmus-mesh/isthmus/internal/events"
	"github.com/isthmus-mesh/isthmus/internal/publish"
	"github.com/isthmus-mesh/isthmus/patches"
	"github.com/isthmus-mesh/isthmus/webhook/inject"
	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

// Source delivers a certificate for a Secret. It returns certs.ErrPending when there is
// no certificate yet. It does not wait for a server that does not answer: a worker that
// waits is missing elsewhere.
type Source interface {
	// Bundle returns the certificate for a request.
	Bundle(ctx context.Context, r certs.Request) (*certs.Bundle, error)
}

// Remover is a Source that creates objects in the cluster, which have to be removed
// with the Secret.
type Remover interface {
	// Remove removes the objects that the source created for a Secret.
	Remove(ctx context.Context, namespace, secret string) error
}

// Reconnecting is a Source that may be unavailable.
type Reconnecting interface {
	// OnAvailable makes f be called whenever the source is available again.
	OnAvailable(f func())
}

// Roots are the trust anchors of the mesh.
type Roots interface {
	// Roots returns the current trust anchors, or why they are unknown.
	Roots() ([]*x509.Certificate, error)
	// OnChange calls f whenever Roots changes.
	OnChange(f func())
}

// Secrets reads, applies and deletes the cluster's Secrets by name.
type Secrets interface {
	publish.Secrets
	// Annotate writes one annotation of a Secret that is still the one that was read.
	Annotate(ctx context.Context, secret *corev1.Secret, key, value string) (*corev1.Secret, error)
	// Delete removes a Secret that is still the one that was read.
	Delete(ctx context.Context, namespace, name string, uid types.UID, resourceVersion string) error
}

// Options configure the controller. Every field without a default is required.
type Options struct {
	// Settings of the operator; the webhook has the same.
	Settings inject.Settings
	// Engine decides whether a pod misses the injection or has a stale template.
	Engine *inject.Engine
	// Mesh returns the settings of a revision of Istio.
	Mesh func(revision string) (patches.Mesh, error)
	// Roots are the mesh's trust anchors.
	Roots Roots
	// Secrets reads, applies and deletes Secrets by name.
	Secrets Secrets
	// Sources by the value of isthmus.dev/source. Agent is not among them: its
	// Secret is written from inside the pod.
	Sources map[policy.Source]Source
	// Dynamic reads, applies and deletes TLSContexts and RoleBindings by name.
	Dynamic dynamic.Interface
	// Events records Events.
	Events *events.Recorder
	// Ready returns nil once the API server has answered the requests for the mesh's
	// settings and roots, with or without success. Nothing is reconciled before.
	Ready func() error
	// Registerer receives the metrics.
	Registerer prometheus.Registerer
	// ReportStale receives the stale pods of a namespace at every reconciliation, and
	// none when the namespace is cleaned up. Default nil: stale workloads are not
	// restarted, and Events say so.
	ReportStale func(namespace string, pods []StalePod)
	// ScanInterval is the time between two lists of the pods of an opted-in
	// namespace, which find pods that miss the injection. Default 10 minutes; more when there are more
	// than 6,000 namespaces, so that it costs at most ten lists a second.
	ScanInterval time.Duration
	// CheckInterval is the time between two reads of a Secret while nothing is due,
	// so that one that was deleted or damaged is repaired. Default 30 seconds; more
	// when there are more than 300 Secrets, so that it costs at most ten requests a
	// second.
	CheckInterval time.Duration
	// Clock defaults to the real one.
	Clock clock.PassiveClock
	// Random returns numbers from 0 to 1, and spreads retries and checks. It must be
	// safe for concurrent use. Default: math/rand/v2.
	Random func() float64
}

// DefaultScanInterval and DefaultCheckInterval are the defaults of Options.
const (
	DefaultScanInterval  = 10 * time.Minute
	DefaultCheckInterval = 30 * time.Second
)

func (o Options) withDefaults() Options {
	o.Settings = o.Settings.WithDefaults()
	if o.ScanInterval == 0 {
		o.ScanInterval = DefaultScanInterval
	}
	if o.CheckInterval == 0 {
		o.CheckInterval = DefaultCheckInterval
	}
	if o.Clock == nil {
		o.Clock = clock.RealClock{}
	}
	if o.Random == nil {
		o.Random = rand.Float64
	}
	return o
}

func (o Options) validate() error {
	var errs []error
	for _, field := range []struct {
		name    string
		missing bool
	}{
		{"engine", o.Engine == nil}, {"mesh", o.Mesh == nil}, {"roots", o.Roots == nil}, {"secrets", o.Secrets == nil},
		{"dynamic client", o.Dynamic == nil}, {"recorder of Events", o.Events == nil}, {"readiness", o.Ready == nil},
		{"registerer", o.Registerer == nil},
	} {
		if field.missing {
			errs = append(errs, fmt.Errorf("controller: no %s given", field.name))
		}
	}
	return errors.Join(errs...)
}
