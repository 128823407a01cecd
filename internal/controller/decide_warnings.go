package controller

import (
	"encoding/json"
	"slices"

	jsonpatch "github.com/evanphx/json-patch/v5"
	corev1 "k8s.io/api/core/v1"

	"github.com/isthmus-mesh/isthmus/webhook/inject"
	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

// warningsOf returns the warnings that the pod was injected with. The status
// annotation holds their codes. To get their texts, the engine decides again on the
// pod as it was before the injection.
func warningsOf(engine *inject.Engine, ns policy.Namespace, pod *corev1.Pod) []policy.Warning {
	status, err := inject.ReadStatus(pod)
	if err != nil || status == nil || len(status.Warnings) == 0 {
		return nil
	}
	original, err := uninjected(pod)
	if err != nil {
		return warningsWithoutText(status.Warnings)
	}
	result := engine.Inject(inject.Request{Pod: original, Namespace: ns})
	given := slices.DeleteFunc(result.Warnings, func(w policy.Warning) bool { return !slices.Contains(status.Warnings, w.Code) })
	if len(given) == 0 {
		return warningsWithoutText(status.Warnings)
	}
	return given
}

// warningsWithoutText returns warnings whose texts are unknown.
func warningsWithoutText(codes []string) []policy.Warning {
	warnings := make([]policy.Warning, len(codes))
	for i, code := range codes {
		warnings[i] = policy.Warning{Code: code, Text: "this warning was given when the pod was injected; the documentation of warnings explains it"}
	}
	return warnings
}

// uninjected returns the pod as its author wrote it.
func uninjected(pod *corev1.Pod) (*corev1.Pod, error) {
	operations, err := inject.Uninject(pod)
	if err != nil {
		return nil, err
	}
	raw, err := json.Marshal(operations)
	if err != nil {
		return nil, err
	}
	patch, err := jsonpatch.DecodePatch(raw)
	if err != nil {
		return nil, err
	}
	document, err := json.Marshal(pod)
	if err != nil {
		return nil, err
	}
	if document, err = patch.Apply(document); err != nil {
		return nil, err
	}
	original := &corev1.Pod{}
	return original, json.Unmarshal(document, original)
}
