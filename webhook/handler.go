package webhook

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/go-logr/logr"
	admissionv1 "k8s.io/api/admission/v1"

	"github.com/isthmus-mesh/isthmus/webhook/inject"
	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

// The paths of the two mutating webhooks, one for each way to opt in.
const (
	// NamespacePath is called for pods without isthmus.dev/inject in namespaces with
	// the label isthmus.dev/injection=enabled.
	NamespacePath = "/inject/namespace"
	// PodPath is called for pods that carry isthmus.dev/inject.
	PodPath = "/inject/pod"
)

// defaultTimeout is the default of Handler.Timeout.
const defaultTimeout = 5 * time.Second

// Namespaces reads namespaces.
type Namespaces interface {
	// Namespace returns a namespace. labelled means that the namespace had the label
	// isthmus.dev/injection=enabled when the API server sent the review: a cached
	// namespace without the label is older than the review, and must be read again.
	Namespace(ctx context.Context, name string, labelled bool) (policy.Namespace, error)
}

// Handler answers admission reviews of pods.
type Handler struct {
	// Engine decides and edits. Required.
	Engine *inject.Engine
	// Namespaces of the cluster. Required.
	Namespaces Namespaces
	// Memory is shared with the other handlers of the server. Required.
	Memory *MemoryBudget
	// Metrics count the decisions. Optional.
	Metrics *Metrics
	// Log gets a line for every decision.
	Log logr.Logger
	// Labelled is true for the webhook at NamespacePath; see Namespaces.
	Labelled bool
	// Timeout limits how long a client may take to send a review, and how long the
	// namespace may take to be read. Default 5 s, the chart's default for the API
	// server's timeout.
	Timeout time.Duration
}

// ServeHTTP implements http.Handler.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	reviewHandler[podFields]{h, h.Memory, h.Log, h.Timeout}.serve(w, r)
}

func (h *Handler) countError(*request[podFields]) {
	h.Metrics.countAdmission(inject.Result{Reason: policy.InternalError}, "error")
}

func (h *Handler) review(ctx context.Context, req *request[podFields]) (*admissionv1.AdmissionResponse, error) {
	if req.Resource.Resource != "pods" || req.Resource.Group != "" || req.SubResource != "" || req.Operation != admissionv1.Create {
		return nil, fmt.Errorf("review of %s %s/%s: the webhook configuration must send CREATE of pods only", req.Operation, req.Resource.Resource, req.SubResource)
	}
	if !req.Object.present {
		return nil, fmt.Errorf("review of pod %s/%s: it holds no object", clip(req.Namespace), clip(req.Name))
	}
	ns, err := h.Namespaces.Namespace(ctx, req.Namespace, h.Labelled)
	if err != nil {
		return nil, fmt.Errorf("read namespace %s: %w", req.Namespace, err)
	}
	result := h.Engine.Inject(inject.Request{Pod: req.Object.value.toPod(), Namespace: ns})
	h.record(req, result)
	return podResponse(result), nil
}

// record counts and logs the decision. A pod that is already injected was counted
// when it was injected: with reinvocation the API server sends two reviews of a pod.
func (h *Handler) record(req *request[podFields], result inject.Result) {
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
		h.Metrics.countAdmission(result, outcome)
	}
	log := h.Log.V(level)
	if !log.Enabled() {
		return
	}
	log.Info("reviewed pod", "namespace", req.Namespace, "pod", clip(req.Object.value.Metadata.nameOrPrefix()), "uid", clip(string(req.UID)), "outcome", outcome, "reason", result.Reason,
		"profile", result.Profile, "mode", result.Mode, "message", clip(result.Message), "warnings", warningCodes(result.Warnings))
}

func warningCodes(warnings []policy.Warning) []string {
	codes := make([]string, len(warnings))
	for i, w := range warnings {
		codes[i] = w.Code
	}
	return codes
}
