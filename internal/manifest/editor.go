package manifest

import (
	"fmt"
	"maps"
	"strings"

	"gomodules.xyz/jsonpatch/v2"
	corev1 "k8s.io/api/core/v1"

	"github.com/isthmus-mesh/isthmus/webhook/inject"
	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

// injector is the part of inject.Engine that InjectEditor needs.
type injector interface {
	Inject(inject.Request) inject.Result
}

// InjectEditor returns the editor of `isthmus inject`. It treats every workload as
// opted in by its namespace, unless the input holds that Namespace with a label that
// opts it out.
func InjectEditor(engine injector) Editor {
	return func(w Workload) Edit {
		labels := map[string]string{policy.InjectionLabel: policy.InjectionEnabled}
		maps.Copy(labels, w.NamespaceLabels)
		result := engine.Inject(inject.Request{
			Pod:       w.Pod,
			Template:  true, // the API server has not added what the service account brings
			Namespace: policy.Namespace{Name: w.Namespace, Labels: labels, Annotations: w.NamespaceAnnotations},
		})
		edit := Edit{Patch: recordEmptyFields(result.Patch, w), Summary: injectSummary(result)}
		for _, warning := range result.Warnings {
			if text, ok := strings.CutPrefix(warning.Text, "namespace "+w.Namespace+": "); ok {
				edit.NamespaceWarnings = append(edit.NamespaceWarnings, text)
				continue
			}
			edit.Warnings = append(edit.Warnings, warning.Text)
		}
		if result.Denied {
			edit.Err = fmt.Errorf("denied (%s): %s", result.Reason, result.Message)
		}
		return edit
	}
}

// injectSummary summarizes a decision: "injected (profile emissary, mode sidecar)",
// "unchanged (no-profile)".
func injectSummary(r inject.Result) string {
	text, details := "injected", ""
	if r.Reason != policy.Injected {
		text, details = "unchanged", string(r.Reason)
	}
	add := func(format, value string) {
		if value == "" {
			return
		}
		if details != "" {
			details += ", "
		}
		details += fmt.Sprintf(format, value)
	}
	add("profile %s", r.Profile)
	add("mode %s", string(r.Mode))
	if details != "" {
		text += " (" + details + ")"
	}
	if r.Message == "" || len(r.Warnings) > 0 {
		return text // the warnings explain it in more detail
	}
	return text + ": " + r.Message
}

// UninjectEditor returns the editor of `isthmus uninject`. The function uninject must
// return no operations for a pod that is not injected.
func UninjectEditor(uninject func(*corev1.Pod) ([]jsonpatch.Operation, error)) Editor {
	return func(w Workload) Edit {
		ops, err := uninject(w.Pod)
		switch {
		case err != nil:
			return Edit{Err: fmt.Errorf("cannot be reverted: %w", err)}
		case len(ops) == 0:
			return Edit{Summary: "unchanged (not injected)"}
		}
		edit := Edit{Patch: ops, Summary: "uninjected"}
		if status, err := inject.ReadStatus(w.Pod); err == nil && status != nil {
			edit.Patch, edit.Spellings = restoreEmptyFields(ops, status.Empty), status.Empty
		}
		return edit
	}
}
