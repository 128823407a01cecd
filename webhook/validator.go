package webhook

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/go-logr/logr"
	admissionv1 "k8s.io/api/admission/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kjson "sigs.k8s.io/json"

	"github.com/isthmus-mesh/isthmus/webhook/inject"
	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

// The paths of the validating webhooks.
const (
	// WorkloadPath is called for what makes pods from a template.
	WorkloadPath = "/validate/workload"
	// ValidateNamespacePath is called for namespaces that carry a key of ours.
	ValidateNamespacePath = "/validate/namespace"
)

// validateTimeout is the default of Validator.Timeout.
const validateTimeout = 3 * time.Second

// Validator answers reviews of workload templates and of namespaces: what a pod's
// review would say later, to a controller, it says now, to the person. It changes
// nothing, and what it overlooks is caught when the pods are created.
type Validator struct {
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
	// Timeout ends a review that does not arrive, and one whose namespace cannot
	// be read. Default 3 s, as long as the API server waits.
	Timeout time.Duration
}

// ServeHTTP implements http.Handler.
func (v *Validator) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	exchange{v, v.Room, v.Log, cmp.Or(v.Timeout, validateTimeout)}.serve(w, r)
}

// kinds are those that are reviewed, by their resource, as the metric names them.
var kinds = map[metav1.GroupResource]string{
	{Resource: "namespaces"}:                  "namespace",
	{Resource: "replicationcontrollers"}:      "replicationcontroller",
	{Group: "apps", Resource: "deployments"}:  "deployment",
	{Group: "apps", Resource: "daemonsets"}:   "daemonset",
	{Group: "apps", Resource: "statefulsets"}: "statefulset",
	{Group: "apps", Resource: "replicasets"}:  "replicaset",
	{Group: "batch", Resource: "jobs"}:        "job",
	{Group: "batch", Resource: "cronjobs"}:    "cronjob",
}

func kindOf(req *admissionv1.AdmissionRequest) (string, bool) {
	kind, ok := kinds[metav1.GroupResource{Group: req.Resource.Group, Resource: req.Resource.Resource}]
	return cmp.Or(kind, "none"), ok
}

func (v *Validator) failed(req *admissionv1.AdmissionRequest) {
	kind := "none"
	if req != nil {
		kind, _ = kindOf(req)
	}
	v.Metrics.validated(kind, "error", policy.InternalError)
}

func (v *Validator) review(ctx context.Context, req *admissionv1.AdmissionRequest) (*admissionv1.AdmissionResponse, error) {
	kind, known := kindOf(req)
	if !known || req.SubResource != "" || req.Operation != admissionv1.Create && req.Operation != admissionv1.Update {
		return nil, fmt.Errorf("review of %s %s/%s: the webhook configuration must send CREATE and UPDATE of namespaces and workloads only", req.Operation, req.Resource.Resource, req.SubResource)
	}
	var o opinion
	var err error
	if kind == "namespace" {
		o, err = v.namespace(req)
	} else {
		o, err = v.workload(ctx, req)
	}
	switch {
	case err != nil:
		return nil, err
	case o.unasked:
		return admit(nil, nil), nil
	}
	v.explain(req, kind, o)
	if o.denied {
		return refuse(o.reason, o.message, o.warnings, o.audit()), nil
	}
	return admit(o.warnings, o.audit()), nil
}

// opinion is what there is to say of an object.
type opinion struct {
	// unasked: the object says nothing new, and there is nothing to say.
	unasked       bool
	denied        bool
	reason        policy.Reason
	message       string
	warnings      []policy.Warning
	profile, mode string
}

func (o opinion) audit() map[string]string {
	a := map[string]string{}
	for key, value := range map[string]string{"reason": string(o.reason), "profile": o.profile, "mode": o.mode} {
		if value != "" {
			a[key] = value
		}
	}
	return a
}

// namespace reviews a namespace's keys. What was wrong with it before is warned
// of, so that its owner can change it step by step.
func (v *Validator) namespace(req *admissionv1.AdmissionRequest) (opinion, error) {
	now, err := decodeNamespace(req.Object.Raw)
	if err != nil {
		return opinion{}, err
	}
	review := v.Engine.ReviewNamespace(now.facts())
	var before []string
	if req.Operation == admissionv1.Update {
		old, err := decodeNamespace(req.OldObject.Raw)
		if err != nil {
			return opinion{}, err
		}
		if now.DeletionTimestamp != nil || !old.differs(now) {
			return opinion{unasked: true}, nil
		}
		before = v.Engine.ReviewNamespace(old.facts()).Problems
	}
	o := opinion{warnings: review.Warnings}
	if review.Excluded {
		o.reason = policy.ExcludedNamespace
	}
	for _, problem := range review.Problems {
		if !o.denied && !slices.Contains(before, problem) {
			o.denied, o.message = true, problem
			continue
		}
		o.warnings = append(o.warnings, policy.Warning{Code: string(policy.InvalidOverride), Text: problem})
	}
	if len(review.Problems) > 0 {
		o.reason = policy.InvalidOverride
	}
	return o, nil
}

// meta is all that a namespace's review reads.
type meta struct {
	Name              string            `json:"name"`
	Labels            map[string]string `json:"labels"`
	Annotations       map[string]string `json:"annotations"`
	DeletionTimestamp *metav1.Time      `json:"deletionTimestamp"`
}

func decodeNamespace(raw []byte) (meta, error) {
	var object struct {
		Metadata meta `json:"metadata"`
	}
	if err := kjson.UnmarshalCaseSensitivePreserveInts(raw, &object); err != nil {
		return meta{}, fmt.Errorf("decode namespace: %w", err)
	}
	return object.Metadata, nil
}

func (m meta) facts() policy.Namespace {
	return policy.Namespace{Name: m.Name, Labels: m.Labels, Annotations: m.Annotations}
}

// differs says whether another namespace says something else to Isthmus: under a
// key of ours, or under one of Istio's that counts beside them.
func (m meta) differs(other meta) bool {
	said := func(m meta) []string {
		var all []string
		for at, keys := range map[string]map[string]string{"label": m.Labels, "annotation": m.Annotations} {
			for key, value := range keys {
				if strings.HasPrefix(key, policy.Domain) || key == policy.IstioRevisionLabel || key == policy.IstioInjectionLabel || key == policy.IstioDataplaneLabel {
					all = append(all, at+" "+key+"="+value)
				}
			}
		}
		slices.Sort(all)
		return all
	}
	return !slices.Equal(said(m), said(other))
}

// explain puts the decision into metric and log.
func (v *Validator) explain(req *admissionv1.AdmissionRequest, kind string, o opinion) {
	level, outcome := 0, "warned"
	switch {
	case o.denied:
		outcome = "denied"
	case len(o.warnings) == 0:
		level, outcome = 1, "allowed"
	}
	v.Metrics.validated(kind, outcome, o.reason)
	v.Log.V(level).Info("reviewed "+kind, "namespace", req.Namespace, "name", clip(req.Name), "uid", clip(string(req.UID)), "operation", req.Operation, "outcome", outcome,
		"reason", o.reason, "profile", o.profile, "mode", o.mode, "message", clip(o.message), "warnings", codes(o.warnings))
}
