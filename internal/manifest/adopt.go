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

// Adopt replaces manual Istio integrations in the sources with Isthmus' annotation,
// in workloads and in Helm values. Everything else stays as it is. Errors are as for
// Transform.
func Adopt(sources []Source, namespace string, engine *inject.Engine, o adopt.Options) (Result, error) {
	return transformWith(sources, transformer{
		namespace:    namespace,
		editWorkload: func(w Workload) Edit { return adoptWorkload(engine, w, o) },
		editValues:   func(v Values) Edit { return adoptValues(engine, v, o) },
	})
}

func adoptWorkload(engine *inject.Engine, w Workload, o adopt.Options) Edit {
	o.KeepLabels = append(slices.Clone(o.KeepLabels), w.SelectorKeys...)
	namespace := policy.Namespace{Name: w.Namespace, Labels: w.NamespaceLabels, Annotations: w.NamespaceAnnotations}
	adoption, err := adopt.Adopt(engine, inject.Request{Pod: w.Pod, Template: true, Namespace: namespace}, o)
	if err == nil {
		err = unknownFields(w.template, adoption.Patch)
	}
	if err != nil {
		return Edit{Err: prefixErrors("cannot be adopted", err)}
	}
	return adoptionEdit(adoption, namespace, o)
}

// prefixErrors prefixes every error that is joined in err.
func prefixErrors(words string, err error) error {
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return fmt.Errorf("%s: %w", words, err)
	}
	var errs []error
	for _, e := range joined.Unwrap() {
		errs = append(errs, prefixErrors(words, e))
	}
	return errors.Join(errs...)
}

// adoptionEdit turns an adoption into an edit with its report.
func adoptionEdit(a adopt.Adoption, ns policy.Namespace, o adopt.Options) Edit {
	switch {
	case a.Reason == "":
		return Edit{Summary: "unchanged (not integrated by hand)"}
	case a.Reason != policy.Injected:
		return Edit{Summary: fmt.Sprintf("unchanged (%s)", a.Reason), Warnings: a.Warnings}
	}
	profile := "profile " + a.Profile + ", "
	if a.Profile == "" {
		profile = ""
	}
	edit := Edit{
		Patch:    a.Patch,
		Summary:  fmt.Sprintf("adopted (%s; %smode %s)", a.Found, profile, a.Mode),
		Warnings: slices.Clone(a.Warnings),
	}
	if o.ByNamespace && ns.Labels[policy.InjectionLabel] != policy.InjectionEnabled {
		edit.Warnings = append(edit.Warnings, fmt.Sprintf("gets no identity until its namespace is labelled: kubectl label namespace %s %s=%s", ns.Name, policy.InjectionLabel, policy.InjectionEnabled))
	}
	if len(a.Differences) > 0 {
		edit.Details = append(edit.Details, "once injected, it differs from what was written by hand in:")
	}
	for _, d := range a.Differences {
		line := fmt.Sprintf("%s: %s -> %s", d.Field, truncated(d.Before), truncated(d.After))
		if d.Reason == "" {
			edit.Warnings = append(edit.Warnings, "unexplained difference, please review: "+line)
			continue
		}
		edit.Details = append(edit.Details, fmt.Sprintf("%s (%s)", line, d.Reason))
	}
	return edit
}

// truncated shortens a value so that it fits on a line of the report.
func truncated(value string) string {
	const limit = 60
	switch r := []rune(value); {
	case value == "":
		return "none"
	case len(r) > limit:
		return string(r[:limit-3]) + "..."
	}
	return value
}

// unknownFields returns an error for each unknown field in the objects that a patch
// removes. Adopt has not considered such fields.
func unknownFields(template any, patch []jsonpatch.Operation) error {
	var errs []error
	for _, op := range patch {
		if op.Operation != "remove" || !strings.HasPrefix(op.Path, "/spec/") {
			continue
		}
		keys, err := parsePointer(op.Path)
		if err != nil {
			return err
		}
		value := template
		for _, key := range keys {
			value = entryAt(value, key)
		}
		into, list := removedType(keys)
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
			errs = append(errs, fmt.Errorf("%s: %w, which adopting would lose; remove it, or leave the pod as it is", fieldPath(keys), e))
		}
	}
	return errors.Join(errs...)
}

// removedType returns a value to decode a removed path into, and whether the path is
// a whole list or one item. into is nil for other paths.
func removedType(keys []string) (into any, isList bool) {
	name := keys[len(keys)-1]
	isList = true
	if _, err := parseIndex(name); err == nil {
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

// entryAt returns the entry of a mapping or list that a key names; nil if there is
// none.
func entryAt(value any, key string) any {
	switch v := value.(type) {
	case map[string]any:
		return v[key]
	case []any:
		if i, err := parseIndex(key); err == nil && i < len(v) {
			return v[i]
		}
	}
	return nil
}
