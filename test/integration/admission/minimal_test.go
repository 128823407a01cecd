package admission

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// minimalMetadata are metadata with absent fields. A CEL expression that reads an absent
// field is an error, and an error denies the pod.
var minimalMetadata = map[string]string{
	"neither labels nor annotations": `{"name": "bare"}`,
	"no annotations":                 `{"name": "bare", "labels": {"app": "edge"}}`,
	"no labels":                      `{"name": "bare", "annotations": {"note": "edge"}}`,
	"empty labels and annotations":   `{"name": "bare", "labels": {}, "annotations": {}}`,
	"empty labels":                   `{"name": "bare", "labels": {}}`,
	"empty annotations":              `{"name": "bare", "annotations": {}}`,
	"null labels and annotations":    `{"name": "bare", "labels": null, "annotations": null}`,
	"a generated name alone":         `{"generateName": "bare-"}`,
}

func minimalPod(metadata string) []byte {
	return fmt.Appendf(nil, `{"apiVersion": "v1", "kind": "Pod", "metadata": %s, "spec": {"containers": [{"name": "main", "image": %q}]}}`, metadata, emissaryImage)
}

func TestMinimalPod(t *testing.T) {
	notOptedIn, optedIn := newNamespace(t), newNamespace(t, enabled)
	for name, metadata := range minimalMetadata {
		t.Run(name, func(t *testing.T) {
			pod, err := notOptedIn.dryRunRaw(minimalPod(metadata))
			require.NoError(t, err)
			assert.False(t, isInjected(pod))

			pod, err = optedIn.dryRunRaw(minimalPod(metadata))
			require.NoError(t, err)
			assert.True(t, isInjected(pod))
		})
	}
}
