package controller

import (
	"maps"
	"os"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/yaml"

	"github.com/isthmus-mesh/isthmus/webhook/inject"
	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

// casesFolder is a folder of small inputs beside the repository. A clone of the repository
// does not have it.
const casesFolder = "../../../shared/cases/objects/"

// TestIDCases reads namespaces and pods from files: which IDs the TLSContext has, and which
// pods get an Event.
func TestIDCases(t *testing.T) {
	for file, test := range map[string]struct {
		holder string
		ids    []string
		events map[string]string
	}{
		"ids-default-and-two.yaml": {"edge", []string{"default", "two"}, map[string]string{}},
		"ids-of-two-secrets.yaml":  {"one", []string{"one"}, map[string]string{"edge-2": EventNotAddressed}},
		"id-from-field.yaml":       {"edge", []string{"two"}, map[string]string{}},
	} {
		t.Run(file, func(t *testing.T) {
			content, err := os.Open(casesFolder + file)
			if os.IsNotExist(err) {
				t.Skipf("%s is not there; TestDesiredContext and TestReadVariable have the same cases", casesFolder)
			}
			require.NoError(t, err)
			defer func() { _ = content.Close() }()
			documents := yaml.NewYAMLOrJSONDecoder(content, 4096)
			var namespace corev1.Namespace
			require.NoError(t, documents.Decode(&namespace))
			e := newEdges(t)
			e.Settings.SecretNames = []string{"istio-certs", "other-certs"}
			e.rules = rulesOf(e.Options)
			e.Engine, err = inject.New(inject.Options{Settings: e.Settings})
			require.NoError(t, err)
			ns := policy.Namespace{Name: namespace.Name, Labels: namespace.Labels, Annotations: namespace.Annotations}
			for {
				pod := &corev1.Pod{}
				if documents.Decode(pod) != nil {
					break
				}
				pod.UID = types.UID(pod.Name)
				e.classifyPod(ns, e.state, pod, nil)
			}
			desire := desireOf(ns, e.rules)
			require.True(t, desire.isValid)
			d := desiredContext(ns.Name, desire.options, slices.Collect(maps.Values(e.state.claims)), test.holder, len(e.state.unclear) > 0)
			assert.Equal(t, test.ids, d.ids)
			events := map[string]string{}
			for _, event := range d.events {
				events[event.Regarding.Name] = event.Reason
			}
			assert.Equal(t, test.events, events)
		})
	}
}
