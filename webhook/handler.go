package webhook

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"runtime/debug"
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

// maxReview is the largest review that is read: the API server takes objects
// of up to 3 MiB, and a CREATE carries one.
const maxReview = 7 << 20

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

// Handler answers admission reviews of pods. It is an http.Handler of its own,
// not controller-runtime's admission.Webhook, for two reasons: an internal
// error must be HTTP 500, so that the failurePolicy decides (there it is an
// answer that denies), and decoding the review with the typed codec costs as
// much again as all else.
type Handler struct {
	// Engine decides.
	Engine *inject.Engine
	// Namespaces of the cluster.
	Namespaces Namespaces
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
	defer func() {
		if p := recover(); p != nil {
			h.fail(w, fmt.Errorf("panic: %v", p), "stack", string(debug.Stack()))
		}
	}()
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		http.Error(w, fmt.Sprintf("method %s: want POST of an AdmissionReview", r.Method), http.StatusMethodNotAllowed)
		return
	}
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "application/json" {
		http.Error(w, fmt.Sprintf("content type %q: want application/json", r.Header.Get("Content-Type")), http.StatusUnsupportedMediaType)
		return
	}
	// A client that sends byte by byte must not hold the memory of a review; a
	// server that cannot set a deadline (as in a test) goes without.
	timeout := cmp.Or(h.Timeout, defaultTimeout)
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(timeout))
	s := scratches.Get().(*scratch)
	defer scratches.Put(s)
	s.body.Reset()
	if _, err := s.body.ReadFrom(http.MaxBytesReader(w, r.Body, maxReview)); err != nil {
		if tooLarge := (*http.MaxBytesError)(nil); errors.As(err, &tooLarge) {
			http.Error(w, fmt.Sprintf("review is larger than %d bytes", tooLarge.Limit), http.StatusRequestEntityTooLarge)
			return
		}
		http.Error(w, "read review: "+err.Error(), http.StatusBadRequest)
		return
	}
	var review admissionv1.AdmissionReview
	if err := kjson.UnmarshalCaseSensitivePreserveInts(s.body.Bytes(), &review); err != nil {
		http.Error(w, "decode AdmissionReview: "+err.Error(), http.StatusBadRequest)
		return
	}
	if review.Kind != "AdmissionReview" || review.Request == nil {
		http.Error(w, fmt.Sprintf("got kind %q: want an AdmissionReview with a request", review.Kind), http.StatusBadRequest)
		return
	}
	// A server that stops ends the contexts of its requests; this one is still
	// to be answered.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), timeout)
	defer cancel()
	response, err := h.review(ctx, review.Request)
	if err != nil {
		h.fail(w, err, "uid", review.Request.UID, "namespace", review.Request.Namespace)
		return
	}
	response.UID = review.Request.UID
	w.Header().Set("Content-Type", "application/json")
	if s.answer, err = appendReview(s.answer[:0], review.APIVersion, response); err != nil {
		h.fail(w, err, "uid", review.Request.UID)
		return
	}
	if _, err := w.Write(s.answer); err != nil {
		h.Log.Error(err, "write response", "uid", review.Request.UID)
	}
}

// fail answers with HTTP 500, so that the failurePolicy decides.
func (h *Handler) fail(w http.ResponseWriter, err error, keys ...any) {
	h.Metrics.count(inject.Result{Reason: policy.InternalError}, "error")
	h.Log.Error(err, "review failed", append(keys, "reason", policy.InternalError)...)
	http.Error(w, string(policy.InternalError)+": "+err.Error(), http.StatusInternalServerError)
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
	codes := make([]string, len(result.Warnings))
	for i, w := range result.Warnings {
		codes[i] = w.Code
	}
	log.Info("reviewed pod", "namespace", req.Namespace, "pod", name, "uid", req.UID, "outcome", outcome, "reason", result.Reason,
		"profile", result.Profile, "mode", result.Mode, "message", result.Message, "warnings", codes)
}
