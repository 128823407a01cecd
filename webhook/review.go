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

	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

// reviewer decides one kind of review, whose objects are decoded into T.
type reviewer[T any] interface {
	// review decides on a request. An error means that there is no decision.
	review(ctx context.Context, req *request[T]) (*admissionv1.AdmissionResponse, error)
	// countError counts a review without a decision. req is nil if the request was
	// not decoded.
	countError(req *request[T])
}

// reviewHandler is the HTTP side of a review: it reads the request, asks the
// reviewer and writes the response. It does not use controller-runtime's
// admission.Webhook, for two reasons: an internal error must be HTTP 500, so that the
// failurePolicy decides (controller-runtime answers with a denial), and its typed
// codec costs as much time as everything else together.
type reviewHandler[T any] struct {
	reviewer reviewer[T]
	// memory is shared with the other handlers of the server.
	memory *MemoryBudget
	log    logr.Logger
	// timeout limits how long a client may take to send a review, and how long a
	// decision may take.
	timeout time.Duration
}

func (h reviewHandler[T]) serve(w http.ResponseWriter, r *http.Request) {
	var req *request[T]
	defer func() {
		if p := recover(); p != nil {
			h.respondError(w, req, fmt.Errorf("panic: %v", p), "stack", string(debug.Stack()))
		}
	}()
	if !acceptsRequest(w, r) {
		return
	}
	// A client that sends byte by byte must not hold the memory of a review. A
	// server without support for deadlines (as in a test) ignores them.
	timeout := cmp.Or(h.timeout, defaultTimeout)
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(timeout))
	buffers := acquireBuffers()
	defer buffers.release()
	pending := h.memory.enqueue(w)
	defer pending.remove()
	if err := pending.read(&buffers.request, http.MaxBytesReader(w, r.Body, maxReview)); err != nil {
		respondReadError(w, err)
		return
	}
	// A server that stops cancels the contexts of its requests, but this request
	// must still be answered.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), timeout)
	defer cancel()
	releaseDecoding, err := pending.acquireDecoding(ctx, buffers.request.Bytes())
	if err != nil {
		respondReadError(w, err)
		return
	}
	defer releaseDecoding()
	review, err := decodeReview[T](buffers.request.Bytes())
	if err != nil && !errors.As(err, &objectError{}) {
		http.Error(w, clip(err.Error()), http.StatusBadRequest)
		return
	}
	if review.Kind != "AdmissionReview" || review.Request == nil {
		http.Error(w, fmt.Sprintf("got kind %q: want an AdmissionReview with a request", clip(review.Kind)), http.StatusBadRequest)
		return
	}
	req = review.Request
	if err != nil {
		h.respondError(w, req, err, "uid", clip(string(req.UID)), "namespace", clip(req.Namespace))
		return
	}
	response, err := h.reviewer.review(ctx, req)
	if errors.Is(err, errOverloaded) {
		respondReadError(w, err)
		return
	}
	if err != nil {
		h.respondError(w, req, err, "uid", clip(string(req.UID)), "namespace", clip(req.Namespace))
		return
	}
	response.UID = req.UID
	w.Header().Set("Content-Type", "application/json")
	if buffers.response, err = appendReview(buffers.response[:0], review.APIVersion, response); err != nil {
		h.respondError(w, req, err, "uid", clip(string(req.UID)))
		return
	}
	if _, err := w.Write(buffers.response); err != nil {
		h.log.Error(err, "write response", "uid", clip(string(req.UID)))
	}
}

// acceptsRequest checks method, content type and length, and answers a request that
// is refused.
func acceptsRequest(w http.ResponseWriter, r *http.Request) bool {
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		http.Error(w, fmt.Sprintf("method %s: want POST of an AdmissionReview", r.Method), http.StatusMethodNotAllowed)
		return false
	}
	if mediaType, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || mediaType != "application/json" {
		http.Error(w, fmt.Sprintf("content type %q: want application/json", clip(r.Header.Get("Content-Type"))), http.StatusUnsupportedMediaType)
		return false
	}
	if r.ContentLength > maxReview {
		respondTooLarge(w)
		return false
	}
	return true
}

// respondReadError answers a review that was not read or not decoded. An overload
// is temporary: with 503 and Retry-After the client of an API server retries after
// that time, within its own timeout.
func respondReadError(w http.ResponseWriter, err error) {
	switch limit := (*http.MaxBytesError)(nil); {
	case errors.As(err, &limit):
		respondTooLarge(w)
	case errors.Is(err, errTooLarge):
		http.Error(w, "review holds too many objects and lists", http.StatusRequestEntityTooLarge)
	case errors.Is(err, errOverloaded):
		w.Header().Set("Retry-After", "1")
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
	default:
		http.Error(w, "read review: "+err.Error(), http.StatusBadRequest)
	}
}

func respondTooLarge(w http.ResponseWriter) {
	http.Error(w, fmt.Sprintf("review is larger than %d bytes", maxReview), http.StatusRequestEntityTooLarge)
}

// respondError answers with HTTP 500, so that the failurePolicy decides.
func (h reviewHandler[T]) respondError(w http.ResponseWriter, req *request[T], err error, logKeys ...any) {
	h.reviewer.countError(req)
	if text := err.Error(); len(text) > maxText { // it may quote the request
		err = errors.New(clip(text))
	}
	h.log.Error(err, "review failed", append(logKeys, "reason", policy.InternalError)...)
	http.Error(w, string(policy.InternalError)+": "+err.Error(), http.StatusInternalServerError)
}

// maxText is how many bytes of a client's text are repeated in logs and responses.
const maxText = 1024

// clip keeps clients from filling logs and responses with long text.
func clip(s string) string { return policy.Clip(s, maxText) }
