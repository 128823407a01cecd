package inject

import (
	"bytes"
	"encoding/json"
	"fmt"

	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

// statusSchema is the version of Status' format.
const statusSchema = 1

// Status is what the annotation isthmus.dev/status holds: exactly what was
// added, so that it can be recognised and taken back. It is the pod author's
// word and never a reason to do more.
type Status struct {
	// Schema is the version of this format.
	Schema int `json:"schema"`
	// Version of Isthmus that injected.
	Version string      `json:"version"`
	Mode    policy.Mode `json:"mode"`
	Profile string      `json:"profile"`
	// Delivery that the edge was prepared for.
	Delivery policy.Delivery `json:"delivery"`
	// Template is the hash of what was rendered.
	Template string `json:"template"`
	// CertDir is the certificate directory, empty where the edge has none: in
	// mode secret an edge may read the Secret through the API.
	CertDir string `json:"certDir,omitempty"`
	// Container is the edge container.
	Container string `json:"container"`
	// Warnings are the codes of the warnings that were given.
	Warnings []string `json:"warnings,omitempty"`
	Added    Added    `json:"added"`
	// Replaced are the annotations whose value was changed, by key.
	Replaced map[string]Replaced `json:"replaced,omitempty"`
	// ReplacedLabels are the labels whose value was changed: those that Istio's
	// injector wrote before Isthmus.
	ReplacedLabels map[string]Replaced `json:"replacedLabels,omitempty"`
}

// Replaced is the value of an annotation or a label before and after.
type Replaced struct {
	Was   string `json:"was"`
	Value string `json:"value"`
}

// Added lists what was added, with fingerprints of what others may change.
type Added struct {
	InitContainers map[string]Prints `json:"initContainers,omitempty"`
	Containers     map[string]Prints `json:"containers,omitempty"`
	Volumes        map[string]string `json:"volumes,omitempty"`
	// Env and Mounts are those of the edge container: name to value, and volume
	// to mount path.
	Env         map[string]string `json:"env,omitempty"`
	Mounts      map[string]string `json:"mounts,omitempty"`
	Labels      map[string]string `json:"labels,omitempty"`
	Annotations map[string]string `json:"annotations,omitempty"`
	PullSecrets []string          `json:"imagePullSecrets,omitempty"`
	// Fields are the lists and maps that were not there before, as JSON
	// pointers.
	Fields []string `json:"fields,omitempty"`
}

// parseStatus reads the annotation strictly.
func parseStatus(text string) (*Status, error) {
	st := &Status{}
	dec := json.NewDecoder(bytes.NewReader([]byte(text)))
	dec.DisallowUnknownFields()
	if err := dec.Decode(st); err != nil {
		return nil, fmt.Errorf("annotation %s is not one that Isthmus wrote: %w", policy.StatusKey, err)
	}
	if st.Schema != statusSchema {
		return nil, fmt.Errorf("annotation %s has schema %d; this version of Isthmus knows %d", policy.StatusKey, st.Schema, statusSchema)
	}
	if wrong := st.wrong(); wrong != "" {
		return nil, fmt.Errorf("annotation %s is not one that Isthmus wrote: %s", policy.StatusKey, wrong)
	}
	return st, nil
}

// wrong says what no injection in the status' mode would leave behind.
func (st *Status) wrong() string {
	switch {
	case st.Container == "":
		return "it names no edge container"
	case !st.Mode.Known():
		return fmt.Sprintf("mode %q is none of Isthmus'", st.Mode)
	case st.Mode == policy.Sidecar && len(st.Added.InitContainers) == 0:
		return "it lists no container"
	case st.Mode != policy.Sidecar && len(st.Added.InitContainers)+len(st.Added.Containers) > 0:
		return fmt.Sprintf("it lists a container, which mode %s adds none of", st.Mode)
	case st.Mode != policy.Sidecar && st.Added.Labels[policy.InjectedLabel] != string(st.Mode):
		return "it lists no label " + policy.InjectedLabel
	default:
		return ""
	}
}
