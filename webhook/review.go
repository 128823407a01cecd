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
	kjson "sigs.k8s.io/json"

	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

// decider answers one sort of review.
type decider interface {
	// review decides; an error is no decision.
	review(ctx context.Context, req *admissionv1.AdmissionRequest) (*admissionv1.AdmissionResponse, error)
	// failed counts a review that was not decided; req is nil where it was not
	// even read.
	failed(req *admissionv1.AdmissionRequest)
}

// exchange is the HTTP side of a review: one in, its answer out. It does not use
// controller-runtime's admission.Webhook, for two reasons: an internal error must
// be HTTP 500, so that the failurePolicy decides (there it is an answer that
// denies), and decoding the review with the typed codec costs as much again as all
// else.
type exchange struct {
	decider decider
	// room is what it shares with the others.
	room *Room
	log  logr.Logger
	// timeout ends a review that does not arrive, and one that cannot be decided.
	timeout time.Duration
}

func (x exchange) serve(w http.ResponseWriter, r *http.Request) {
	var review admissionv1.AdmissionReview
	defer func() {
		if p := recover(); p != nil {
			x.fail(w, review.Request, fmt.Errorf("panic: %v", p), "stack", string(debug.Stack()))
		}
	}()
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		http.Error(w, fmt.Sprintf("method %s: want POST of an AdmissionReview", r.Method), http.StatusMethodNotAllowed)
		return
	}
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "application/json" {
		http.Error(w, fmt.Sprintf("content type %q: want application/json", clip(r.Header.Get("Content-Type"))), http.StatusUnsupportedMediaType)
		return
	}
	if r.ContentLength > maxReview {
		tooLarge(w)
		return
	}
	// A client that sends byte by byte must not hold the memory of a review; a
	// server that cannot set a deadline (as in a test) goes without.
	timeout := cmp.Or(x.timeout, defaultTimeout)
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(timeout))
	s := take()
	defer s.put()
	a := x.room.arrive(w)
	defer a.leave()
	if err := a.read(&s.body, http.MaxBytesReader(w, r.Body, maxReview)); err != nil {
		refuseRead(w, err)
		return
	}
	// A server that stops ends the contexts of its requests; this one is still
	// to be answered.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), timeout)
	defer cancel()
	exit, err := a.enter(ctx, s.body.Bytes())
	if err != nil {
		refuseRead(w, err)
		return
	}
	defer exit()
	if err := kjson.UnmarshalCaseSensitivePreserveInts(s.body.Bytes(), &review); err != nil {
		http.Error(w, "decode AdmissionReview: "+clip(err.Error()), http.StatusBadRequest)
		return
	}
	if review.Kind != "AdmissionReview" || review.Request == nil {
		http.Error(w, fmt.Sprintf("got kind %q: want an AdmissionReview with a request", clip(review.Kind)), http.StatusBadRequest)
		return
	}
	response, err := x.decider.review(ctx, review.Request)
	if errors.Is(err, errCrowded) {
		refuseRead(w, err)
		return
	}
	if err != nil {
		x.fail(w, review.Request, err, "uid", clip(string(review.Request.UID)), "namespace", clip(review.Request.Namespace))
		return
	}
	response.UID = review.Request.UID
	w.Header().Set("Content-Type", "application/json")
	if s.answer, err = appendReview(s.answer[:0], review.APIVersion, response); err != nil {
		x.fail(w, review.Request, err, "uid", clip(string(review.Request.UID)))
		return
	}
	if _, err := w.Write(s.answer); err != nil {
		x.log.Error(err, "write response", "uid", clip(string(review.Request.UID)))
	}
}

// refuseRead says why a review was not read, or not decoded. What is over in a
// moment is said so that an API server asks again: its client waits as long as
// Retry-After says, within its own timeout.
func refuseRead(w http.ResponseWriter, err error) {
	switch limit := (*http.MaxBytesError)(nil); {
	case errors.As(err, &limit):
		tooLarge(w)
	case errors.Is(err, errTooLarge):
		http.Error(w, "review holds too many objects and lists", http.StatusRequestEntityTooLarge)
	case errors.Is(err, errCrowded):
		w.Header().Set("Retry-After", "1")
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
	default:
		http.Error(w, "read review: "+err.Error(), http.StatusBadRequest)
	}
}

func tooLarge(w http.ResponseWriter) {
	http.Error(w, fmt.Sprintf("review is larger than %d bytes", maxReview), http.StatusRequestEntityTooLarge)
}

// longest is the length of what a client sent in logs and answers, in bytes.
const longest = 1024

// clip keeps what a client sent from filling logs and answers.
func clip(s string) string {
	if len(s) <= longest {
		return s
	}
	return s[:longest] + "..."
}

// fail answers with HTTP 500, so that the failurePolicy decides.
func (x exchange) fail(w http.ResponseWriter, req *admissionv1.AdmissionRequest, err error, keys ...any) {
	x.decider.failed(req)
	if text := err.Error(); len(text) > longest { // it may repeat what was sent
		err = errors.New(clip(text))
	}
	x.log.Error(err, "review failed", append(keys, "reason", policy.InternalError)...)
	http.Error(w, string(policy.InternalError)+": "+err.Error(), http.StatusInternalServerError)
}
