package admission

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// metadata that is bare in every way: a CEL expression that reads what is not
// there is an error, and an error denies the pod.
var bareMetadata = map[string]string{
	"neither labels nor annotations": `{"name": "bare"}`,
	"no annotations":                 `{"name": "bare", "labels": {"app": "edge"}}`,
	"no labels":                      `{"name": "bare", "annotations": {"note": "edge"}}`,
	"empty labels and annotations":   `{"name": "bare", "labels": {}, "annotations": {}}`,
	"empty labels":                   `{"name": "bare", "labels": {}}`,
	"empty annotations":              `{"name": "bare", "annotations": {}}`,
	"null labels and annotations":    `{"name": "bare", "labels": null, "annotations": null}`,
	"a generated name alone":         `{"generateName": "bare-"}`,
}

func barePod(metadata string) []byte {
	return fmt.Appendf(nil, `{"apiVersion": "v1", "kind": "Pod", "metadata": %s, "spec": {"containers": [{"name": "main", "image": %q}]}}`, metadata, emissaryImage)
}

func TestBarePod(t *testing.T) {
	plain, opted := newSpace(t), newSpace(t, enabled)
	for name, metadata := range bareMetadata {
		t.Run(name, func(t *testing.T) {
			pod, err := plain.dryRunRaw(barePod(metadata))
			require.NoError(t, err)
			assert.False(t, isInjected(pod))

			pod, err = opted.dryRunRaw(barePod(metadata))
			require.NoError(t, err)
			assert.True(t, isInjected(pod))
		})
	}
}
