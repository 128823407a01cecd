//go:build e2e

package lifecycle

import (
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/isthmus-mesh/isthmus/patches"
	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

// The test checks the modes and owners of the key's files from inside the edge's container:
// the agent writes the files as its own user, the edge reads them as another user, and cannot
// write there.
func TestKeyFiles(t *testing.T) {
	t.Parallel()
	s := newNamespace(t, "files", nil)
	for name, test := range map[string]struct {
		mode     string
		files    map[string]string
		owner    int64
		capacity bool
	}{
		"if the agent writes them, expect 1 MiB of memory": {
			"sidecar", map[string]string{"key.pem": "0644", "cert-chain.pem": "0644", "root-cert.pem": "0644"}, agentUID, true,
		},
		"if they are a Secret, expect them from the kubelet": {
			"secret", map[string]string{
				"tls.key": "0444", "tls.crt": "0444", "ca.crt": "0444", "key.pem": "0444", "cert-chain.pem": "0444", "root-cert.pem": "0444",
			}, 0, false,
		},
	} {
		t.Run(name, func(t *testing.T) {
			s.createReady(t, annotated(inspectorPod(test.mode, "--folder", patches.DefaultCertDir, "--remain"), map[string]string{policy.ModeKey: test.mode}))
			v := s.firstView(t, test.mode, "edge")
			files := map[string]string{}
			for _, f := range v.Files {
				files[f.Name] = f.Mode
				assert.Equal(t, test.owner, f.UID, f.Name)
				assert.Empty(t, f.Read, "the edge reads %s", f.Name)
				assert.NotZero(t, f.Bytes, f.Name)
			}
			assert.Equal(t, test.files, files)
			assert.EqualValues(t, edgeUID, v.UID)
			assert.Contains(t, v.Write, "read-only file system", "the edge cannot write there")
			assert.Equal(t, s.identity("default"), v.ID)
			assert.Empty(t, v.Pair)
			if test.capacity {
				assert.EqualValues(t, 1<<20, v.Capacity)
			}
		})
	}
}
