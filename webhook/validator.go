package webhook

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/go-logr/logr"
	admissionv1 "k8s.io/api/admission/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/isthmus-mesh/isthmus/webhook/inject"
	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

// The paths of the validating webhooks.
const (
	// WorkloadPath is called for workloads, which create pods from a template.
	WorkloadPath = "/validate/workload"
	// ValidateNamespacePath is called for namespaces with a key of Isthmus.
	ValidateNamespacePath = "/validate/namespace"
)

// defaultValidatorTimeout is the default of Validator.Timeout.
const defaultValidatorTimeout = 3 * time.Second

// Validator answers reviews of workload templates and of namespaces. The user who
// applies them immediately gets the warnings and denials that a controller would get
// later, when it creates the pods. A Validator changes nothing. A problem that it
// misses is found when the pods are created.
type Validator struct {
	// Engine decides. Required.
	Engine *inject.Engine
	// Namespaces of the cluster. Required.
	Namespaces Namespaces
	// Memory is shared with the other handlers of the server. Required.
	Memory *MemoryBudget
	// Metrics count the decisions. Optional.
	Metrics *Metrics
	// Log gets a line for every decision.
	Log logr.Logger
	// Timeout limits how long a client may take to send a review, and how long the
	// namespace may take to be read. Default 3 s, the chart's timeout for the API
	// server.
	Timeout time.Duration
}

// ServeHTTP implements http.Handler.
func (v *Validator) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	reviewHandler[validatedObject]{v, v.Memory, v.Log, cmp.Or(v.Timeout, defaultValidatorTimeout)}.serve(w, r)
}

// validatedKinds maps the resources that are reviewed to their kinds, as the metric
// names them.
var validatedKinds = map[metav1.GroupResource]string{
	{Resource: "namespaces"}:                  "namespace",
	{Resource: "replicationcontrollers"}:      "replicationcontroller",
	{Group: "apps", Resource: "deployments"}:  "deployment",
	{Group: "apps", Resource: "daemonsets"}:   "daemonset",
	{Group: "apps", Resource: "statefulsets"}: "statefulset",
	{Group: "apps", Resource: "replicasets"}:  "replicaset",
	{Group: "batch", Resource: "jobs"}:        "job",
	{Group: "batch", Resource: "cronjobs"}:    "cronjob",
}

// validatedKind returns the kind for the metric, "none" if it is not reviewed.
func validatedKind(req *request[validatedObject]) (kind string, ok bool) {
	kind, ok = validatedKinds[metav1.GroupResource{Group: req.Resource.Group, Resource: req.Resource.Resource}]
	return cmp.Or(kind, "none"), ok
}

func (v *Validator) countError(req *request[validatedObject]) {
	kind := "none"
	if req != nil {
		kind, _ = validatedKind(req)
	}
	v.Metrics.countValidation(kind, "error", policy.InternalError)
}

func (v *Validator) review(ctx context.Context, req *request[validatedObject]) (*admissionv1.AdmissionResponse, error) {
	kind, ok := validatedKind(req)
	if !ok || req.SubResource != "" || req.Operation != admissionv1.Create && req.Operation != admissionv1.Update {
		return nil, fmt.Errorf("review of %s %s/%s: the webhook configuration must send CREATE and UPDATE of namespaces and workloads only", req.Operation, req.Resource.Resource, req.SubResource)
	}
	if !req.Object.present || req.Operation == admissionv1.Update && !req.OldObject.present {
		return nil, fmt.Errorf("review of %s %s %s/%s: an object is missing", req.Operation, kind, clip(req.Namespace), clip(req.Name))
	}
	var d decision
	var err error
	if kind == "namespace" {
		d = v.validateNamespace(req)
	} else {
		d, err = v.validateWorkload(ctx, req)
	}
	switch {
	case err != nil:
		return nil, err
	case d.unchanged:
		return allowedResponse(nil, nil), nil
	}
	v.record(req, kind, d)
	if d.denied {
		return deniedResponse(d.reason, d.message, d.warnings, d.auditAnnotations()), nil
	}
	return allowedResponse(d.warnings, d.auditAnnotations()), nil
}

// decision is the outcome of a review.
type decision struct {
	// unchanged is true for an update that changes nothing that Isthmus reads. It is
	// allowed without a warning, and neither counted nor logged.
	unchanged     bool
	denied        bool
	reason        policy.Reason
	message       string
	warnings      []policy.Warning
	profile, mode string
}

func (d decision) auditAnnotations() map[string]string {
	annotations := map[string]string{}
	for key, value := range map[string]string{"reason": string(d.reason), "profile": d.profile, "mode": d.mode} {
		if value != "" {
			annotations[key] = value
		}
	}
	return annotations
}

// record counts and logs the outcome.
func (v *Validator) record(req *request[validatedObject], kind string, d decision) {
	level, outcome := 0, "warned"
	switch {
	case d.denied:
		outcome = "denied"
	case len(d.warnings) == 0:
		level, outcome = 1, "allowed"
	}
	v.Metrics.countValidation(kind, outcome, d.reason)
	v.Log.V(level).Info("reviewed "+kind, "namespace", req.Namespace, "name", clip(req.Name), "uid", clip(string(req.UID)), "operation", req.Operation, "outcome", outcome,
		"reason", d.reason, "profile", d.profile, "mode", d.mode, "message", clip(d.message), "warnings", warningCodes(d.warnings))
}
