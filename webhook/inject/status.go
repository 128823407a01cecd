package inject

import (
	"encoding/json"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

// statusSchema is the version of Status' format.
const statusSchema = 1

// Status is the content of the annotation isthmus.dev/status: exactly what was added, so
// that it can be recognised and reverted. The author of a pod can write it too, so it
// never grants anything.
type Status struct {
	// Schema is the version of this format.
	Schema int `json:"schema"`
	// Version is the version of Isthmus that injected the pod.
	Version string `json:"version"`
	// Mode and Profile are those of the injection.
	Mode    policy.Mode `json:"mode"`
	Profile string      `json:"profile"`
	// Delivery is how the edge gets its certificate.
	Delivery policy.Delivery `json:"delivery"`
	// Template is the hash of the rendered sidecar.
	Template string `json:"template"`
	// CertDir is the certificate directory. It is empty if the edge has none, as in
	// mode secret if the edge reads the Secret through the API.
	CertDir string `json:"certDir,omitempty"`
	// Container is the name of the edge container.
	Container string `json:"container"`
	// Warnings are the codes of the warnings of the injection.
	Warnings []string `json:"warnings,omitempty"`
	// Added is what was added.
	Added Added `json:"added"`
	// Replaced are the annotations whose value was replaced, by key.
	Replaced map[string]Replaced `json:"replaced,omitempty"`
	// ReplacedLabels are the labels whose value was replaced, by key: those that
	// Istio's injector had set before Isthmus.
	ReplacedLabels map[string]Replaced `json:"replacedLabels,omitempty"`
	// Empty are the fields of a manifest that were null or empty before, as JSON
	// pointers with their spelling: "null", "~", "". Only the command line writes
	// them; the API server drops such fields.
	Empty map[string]string `json:"empty,omitempty"`
}

// Replaced is the value of an annotation or a label before and after the injection.
type Replaced struct {
	// Was is the value before the injection.
	Was string `json:"was"`
	// Value is the value that Isthmus wrote.
	Value string `json:"value"`
}

// Added lists what was added, with fingerprints of what others may change.
type Added struct {
	// InitContainers, Containers and Volumes hold fingerprints by name.
	InitContainers map[string]Fingerprints `json:"initContainers,omitempty"`
	Containers     map[string]Fingerprints `json:"containers,omitempty"`
	Volumes        map[string]string       `json:"volumes,omitempty"`
	// Env and Mounts are those of the edge container: values by name, and mount
	// paths by volume.
	Env    map[string]string `json:"env,omitempty"`
	Mounts map[string]string `json:"mounts,omitempty"`
	// Labels and Annotations hold values by key.
	Labels      map[string]string `json:"labels,omitempty"`
	Annotations map[string]string `json:"annotations,omitempty"`
	// PullSecrets are names.
	PullSecrets []string `json:"imagePullSecrets,omitempty"`
	// Fields are the lists and maps that did not exist before, as JSON pointers.
	Fields []string `json:"fields,omitempty"`
}

// ReadStatus reads the status annotation of a pod. It returns nil if the pod has none.
func ReadStatus(pod *corev1.Pod) (*Status, error) {
	text, ok := pod.Annotations[policy.StatusKey]
	if !ok {
		return nil, nil
	}
	return parseStatus(text)
}

// maxStatusBytes is the longest status that is written and read.
const maxStatusBytes = 64 << 10

// parseStatus reads the annotation. It ignores fields that it does not know: webhooks of
// two versions run side by side during an upgrade and a rollback.
func parseStatus(text string) (*Status, error) {
	if len(text) > maxStatusBytes {
		return nil, fmt.Errorf("annotation %s is not one that Isthmus wrote: it holds %d bytes, and Isthmus writes at most %d", policy.StatusKey, len(text), maxStatusBytes)
	}
	st := &Status{}
	if err := json.Unmarshal([]byte(text), st); err != nil {
		return nil, fmt.Errorf("annotation %s is not one that Isthmus wrote: %w", policy.StatusKey, err)
	}
	if st.Schema != statusSchema {
		return nil, fmt.Errorf("annotation %s has schema %d; this version of Isthmus knows %d", policy.StatusKey, st.Schema, statusSchema)
	}
	if problem := st.problem(); problem != "" {
		return nil, fmt.Errorf("annotation %s is not one that Isthmus wrote: %s", policy.StatusKey, problem)
	}
	return st, nil
}

// checkUnderstood returns an error if the status has a field or a mode that this version
// does not know, so that it cannot tell everything that was added.
func (st *Status) checkUnderstood(text string) error {
	dec := json.NewDecoder(strings.NewReader(text))
	dec.DisallowUnknownFields()
	err := dec.Decode(&Status{})
	if err == nil && !st.Mode.Known() {
		err = fmt.Errorf("unknown mode %q", st.Mode)
	}
	if err != nil {
		return fmt.Errorf("annotation %s was written by version %q of Isthmus, and this version does not know all of it: %w; use that version", policy.StatusKey, st.Version, err)
	}
	return nil
}

// problem says why no injection in the status' mode can have written it, or returns "". A
// newer version may have modes that this version does not know; their pods carry the
// label too.
func (st *Status) problem() string {
	hasLabel := st.Added.Labels[policy.InjectedLabel] == string(st.Mode)
	switch {
	case st.Container == "":
		return "it names no edge container"
	case !st.Mode.Known() && (st.Mode == "" || !hasLabel):
		return fmt.Sprintf("mode %q is unknown", policy.Clip(string(st.Mode), maxTemplateName))
	case st.Mode == policy.Sidecar && len(st.Added.InitContainers) == 0:
		return "it lists no container"
	case st.Mode != policy.Sidecar && st.Mode.Known() && len(st.Added.InitContainers)+len(st.Added.Containers) > 0:
		return fmt.Sprintf("it lists a container, but mode %s adds none", st.Mode)
	case st.Mode != policy.Sidecar && !hasLabel:
		return "it lists no label " + policy.InjectedLabel
	}
	if dir, problem := policy.ParseCertDir(st.CertDir); st.CertDir != "" && (problem != "" || dir != st.CertDir) {
		return "certDir is " + policy.Quote(policy.CertDirKey, st.CertDir) + ", which is no directory that an injection chooses"
	}
	return ""
}
