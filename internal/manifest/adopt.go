package manifest

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"gomodules.xyz/jsonpatch/v2"
	corev1 "k8s.io/api/core/v1"
	kjson "sigs.k8s.io/json"

	"github.com/isthmus-mesh/isthmus/internal/adopt"
	"github.com/isthmus-mesh/isthmus/webhook/inject"
	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

// Adopt turns the workloads in the sources that are integrated with Istio by hand
// into plain ones plus Isthmus' key, and Helm values likewise. Everything else
// comes out as it went in. Errors are as for Transform.
func Adopt(sources []Source, namespace string, engine *inject.Engine, o adopt.Options) (Result, error) {
	return transformWith(sources, transformer{
		namespace: namespace,
		edit:      func(w Workload) Edit { return adoptWorkload(engine, w, o) },
		values:    func(v Values) Edit { return adoptValues(engine, v, o) },
	})
}

func adoptWorkload(engine *inject.Engine, w Workload, o adopt.Options) Edit {
	o.KeepLabels = append(slices.Clone(o.KeepLabels), w.Selected...)
	namespace := policy.Namespace{Name: w.Namespace, Labels: w.NamespaceLabels, Annotations: w.NamespaceAnnotations}
	adoption, err := adopt.Adopt(engine, inject.Request{Pod: w.Pod, Template: true, Namespace: namespace}, o)
	if err == nil {
		err = foreignFields(w.template, adoption.Patch)
	}
	if err != nil {
		return Edit{Err: prefixed("cannot be adopted", err)}
	}
	return editOf(adoption, namespace, o)
}

// prefixed puts words in front of every error that is joined in err.
func prefixed(words string, err error) error {
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return fmt.Errorf("%s: %w", words, err)
	}
	var errs []error
	for _, e := range joined.Unwrap() {
		errs = append(errs, prefixed(words, e))
	}
	return errors.Join(errs...)
}

// editOf says what an adoption comes to.
func editOf(a adopt.Adoption, ns policy.Namespace, o adopt.Options) Edit {
	switch {
	case a.Reason == "":
		return Edit{Verdict: "unchanged (not integrated by hand)"}
	case a.Reason != policy.Injected:
		return Edit{Verdict: fmt.Sprintf("unchanged (%s)", a.Reason), Warnings: a.Warnings}
	}
	profile := "profile " + a.Profile + ", "
	if a.Profile == "" {
		profile = ""
	}
	edit := Edit{
		Patch:    a.Patch,
		Verdict:  fmt.Sprintf("adopted (%s; %smode %s)", a.Found, profile, a.Mode),
		Warnings: slices.Clone(a.Warnings),
	}
	if o.ByNamespace && ns.Labels[policy.InjectionLabel] != policy.InjectionEnabled {
		edit.Warnings = append(edit.Warnings, fmt.Sprintf("gets no identity before its namespace is labelled: kubectl label namespace %s %s=%s", ns.Name, policy.InjectionLabel, policy.InjectionEnabled))
	}
	if len(a.Differences) > 0 {
		edit.Details = append(edit.Details, "once injected, it differs from what was written by hand in:")
	}
	for _, d := range a.Differences {
		line := fmt.Sprintf("%s: %s -> %s", d.Field, shown(d.Before), shown(d.After))
		if d.Reason == "" {
			edit.Warnings = append(edit.Warnings, "no reason is known for a difference, so have a look: "+line)
			continue
		}
		edit.Details = append(edit.Details, fmt.Sprintf("%s (%s)", line, d.Reason))
	}
	return edit
}

// shown shortens a value for a line.
func shown(value string) string {
	const most = 60
	switch r := []rune(value); {
	case value == "":
		return "none"
	case len(r) > most:
		return string(r[:most-3]) + "..."
	}
	return value
}

// foreignFields says what in the things that a patch removes is known to no type,
// and so was not looked at.
func foreignFields(template any, patch []jsonpatch.Operation) error {
	var errs []error
	for _, op := range patch {
		if op.Operation != "remove" || !strings.HasPrefix(op.Path, "/spec/") {
			continue
		}
		keys, err := pointer(op.Path)
		if err != nil {
			return err
		}
		value := template
		for _, key := range keys {
			value = below(value, key)
		}
		into, list := typeOf(keys)
		if into == nil {
			continue
		}
		if !list {
			value = []any{value}
		}
		raw, err := json.Marshal(value)
		if err != nil {
			return err
		}
		strict, err := kjson.UnmarshalStrict(raw, into)
		if err != nil {
			return err
		}
		for _, e := range strict {
			errs = append(errs, fmt.Errorf("%s: %w, and it would be lost; remove it, or leave the pod as it is", fieldPath(keys), e))
		}
	}
	return errors.Join(errs...)
}

// typeOf is what a removed path holds: an item of a list, or the list.
func typeOf(keys []string) (into any, isList bool) {
	name := keys[len(keys)-1]
	isList = true
	if _, err := index(name); err == nil {
		name, isList = keys[len(keys)-2], false
	}
	switch name {
	case "containers", "initContainers":
		return &[]corev1.Container{}, isList
	case "volumes":
		return &[]corev1.Volume{}, isList
	case "volumeMounts":
		return &[]corev1.VolumeMount{}, isList
	case "env":
		return &[]corev1.EnvVar{}, isList
	}
	return nil, false
}

// below is the entry of a mapping or list that a key names, nil when there is
// none.
func below(value any, key string) any {
	switch v := value.(type) {
	case map[string]any:
		return v[key]
	case []any:
		if i, err := index(key); err == nil && i < len(v) {
			return v[i]
		}
	}
	return nil
}
