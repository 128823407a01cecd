package webhook

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/go-logr/logr"
	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	kjson "sigs.k8s.io/json"

	"github.com/isthmus-mesh/isthmus/webhook/inject"
	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

// The paths of the two webhooks, one for each way to opt in.
const (
	// NamespacePath is called for pods of a namespace labelled
	// isthmus.dev/injection=enabled that do not carry isthmus.dev/inject.
	NamespacePath = "/inject/namespace"
	// PodPath is called for pods that carry isthmus.dev/inject.
	PodPath = "/inject/pod"
)

// defaultTimeout is the default of Handler.Timeout.
const defaultTimeout = 5 * time.Second

// Namespaces knows the facts of namespaces.
type Namespaces interface {
	// Namespace returns the facts of a namespace. Where the API server says
	// that it carries the label isthmus.dev/injection=enabled, and the facts
	// at hand say otherwise, they are older than the review and must be read
	// again.
	Namespace(ctx context.Context, name string, labelled bool) (policy.Namespace, error)
}

// Handler answers admission reviews of pods.
type Handler struct {
	// Engine decides.
	Engine *inject.Engine
	// Namespaces of the cluster.
	Namespaces Namespaces
	// Room is what it shares with other handlers of the server. Required.
	Room *Room
	// Metrics count the decisions.
	Metrics *Metrics
	// Log gets a line for every decision.
	Log logr.Logger
	// Labelled is true for the webhook of labelled namespaces.
	Labelled bool
	// Timeout ends a review that does not arrive, and one whose namespace cannot
	// be read. Default 5 s, as long as the API server waits by the chart's
	// default.
	Timeout time.Duration
}

// ServeHTTP implements http.Handler.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	exchange{h, h.Room, h.Log, h.Timeout}.serve(w, r)
}

func (h *Handler) failed(*admissionv1.AdmissionRequest) {
	h.Metrics.count(inject.Result{Reason: policy.InternalError}, "error")
}

func (h *Handler) review(ctx context.Context, req *admissionv1.AdmissionRequest) (*admissionv1.AdmissionResponse, error) {
	if req.Resource.Resource != "pods" || req.Resource.Group != "" || req.SubResource != "" || req.Operation != admissionv1.Create {
		return nil, fmt.Errorf("review of %s %s/%s: the webhook configuration must send CREATE of pods only", req.Operation, req.Resource.Resource, req.SubResource)
	}
	pod := &corev1.Pod{}
	if err := kjson.UnmarshalCaseSensitivePreserveInts(req.Object.Raw, pod); err != nil {
		return nil, fmt.Errorf("decode pod: %w", err)
	}
	ns, err := h.Namespaces.Namespace(ctx, req.Namespace, h.Labelled)
	if err != nil {
		return nil, fmt.Errorf("read namespace %s: %w", req.Namespace, err)
	}
	result := h.Engine.Inject(inject.Request{Pod: pod, Namespace: ns})
	h.explain(req, pod, result)
	return respond(result), nil
}

// explain puts the decision into metric and log. A pod that is injected
// already was counted when it was: with reinvocation the API server asks twice.
func (h *Handler) explain(req *admissionv1.AdmissionRequest, pod *corev1.Pod, result inject.Result) {
	level, outcome := 1, "allowed"
	switch {
	case result.Denied:
		level, outcome = 0, "denied"
	case result.Reason == policy.Injected:
		level, outcome = 0, "patched"
	case len(result.Warnings) > 0:
		level = 0
	}
	if result.Reason != policy.AlreadyInjected {
		h.Metrics.count(result, outcome)
	}
	log := h.Log.V(level)
	if !log.Enabled() {
		return
	}
	name := pod.Name
	if name == "" {
		name = pod.GenerateName
	}
	log.Info("reviewed pod", "namespace", req.Namespace, "pod", clip(name), "uid", clip(string(req.UID)), "outcome", outcome, "reason", result.Reason,
		"profile", result.Profile, "mode", result.Mode, "message", clip(result.Message), "warnings", codes(result.Warnings))
}

// codes are the codes of warnings, for the log.
func codes(warnings []policy.Warning) []string {
	list := make([]string, len(warnings))
	for i, w := range warnings {
		list[i] = w.Code
	}
	return list
}
