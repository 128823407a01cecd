package servingcert

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr/funcr"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/isthmus-mesh/isthmus/test/framework/certtest"
)

// inject writes the root into the webhooks of a configuration, as cert-manager's cainjector
// does.
func (i *installation) inject(kind string, webhooks int, root *certtest.Pair) {
	i.t.Helper()
	var operations []map[string]any
	for n := range webhooks {
		operations = append(operations, map[string]any{"op": "add", "path": fmt.Sprintf("/webhooks/%d/clientConfig/caBundle", n), "value": root.CertificatePEM})
	}
	patch, err := json.Marshal(operations)
	require.NoError(i.t, err)
	client := i.admin.AdmissionregistrationV1()
	if kind == "mutatingwebhookconfigurations" {
		_, err = client.MutatingWebhookConfigurations().Patch(i.t.Context(), i.configuration, types.JSONPatchType, patch, metav1.PatchOptions{})
	} else {
		_, err = client.ValidatingWebhookConfigurations().Patch(i.t.Context(), i.configuration, types.JSONPatchType, patch, metav1.PatchOptions{})
	}
	require.NoError(i.t, err)
}

// A replica with a certificate from files is not ready before API servers can verify it,
// and once it is ready, no review fails.
func TestFilesAreReadyOnceTheAPIServerTrustsThem(t *testing.T) {
	s := newService(t)
	i := install(t, s.listener.Addr().String())
	root := certtest.NewAuthority(t)
	leaf := root.Leaf(t, certtest.IPAddresses(net.IPv4(127, 0, 0, 1)))
	folder := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(folder, "tls.crt"), leaf.ChainPEM, 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(folder, "tls.key"), leaf.KeyPEM, 0o600))
	var mu sync.Mutex
	var text strings.Builder
	r := i.startFileReplica(t, folder, funcr.New(func(_, arguments string) {
		mu.Lock()
		defer mu.Unlock()
		text.WriteString(arguments)
	}, funcr.Options{}))
	s.setEndpoints(r)
	expectUnready := func(kind, webhook string) {
		t.Helper()
		require.EventuallyWithT(t, func(c *assert.CollectT) {
			assert.ErrorContains(c, r.source.Ready(), fmt.Sprintf("webhook %q of %s %q has no caBundle yet", webhook, kind, i.configuration))
			mu.Lock()
			defer mu.Unlock()
			assert.Contains(c, text.String(), kind, "the log says so")
		}, 10*time.Second, 5*time.Millisecond)
		assert.Error(t, i.createPod(), "no replica is ready to review it")
	}

	expectUnready("mutatingwebhookconfiguration", "namespace.isthmus.dev")
	i.inject("mutatingwebhookconfigurations", 2, root)
	expectUnready("validatingwebhookconfiguration", "template.isthmus.dev")
	i.inject("validatingwebhookconfigurations", 1, root)
	requireReady(t, r)
	require.EventuallyWithT(t, func(c *assert.CollectT) {
		assert.NoError(c, i.createPod())
		assert.NoError(c, i.createConfigMap())
	}, 10*time.Second, 20*time.Millisecond, "the API server observes the configuration by a watch")
}
