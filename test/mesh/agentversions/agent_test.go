package agentversions_test

import (
	"bytes"
	"context"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/isthmus-mesh/isthmus/internal/certs"
	"github.com/isthmus-mesh/isthmus/patches"
	"github.com/isthmus-mesh/isthmus/test/framework/certtest"
	"github.com/isthmus-mesh/isthmus/test/framework/istio"
)

var certificateFiles = []string{"key.pem", "cert-chain.pem", "root-cert.pem"}

// launchAgent starts an agent with exactly what is injected for the image of its version.
func launchAgent(t *testing.T, namespace string, p program, ttl time.Duration) *istio.Agent {
	t.Helper()
	a, err := istio.LaunchAgent(t.Context(), istiod, istio.AgentOptions{
		Namespace: namespace, ServiceAccount: p.label(), TTL: ttl, Image: p.image(), Program: p.path,
		Env: map[string]string{"KUBERNETES_SERVICE_HOST": "127.0.0.1"}, // as the kubelet does
	})
	require.NoError(t, err)
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(p.version)
			a.Dump(os.Stderr)
		}
		assert.NoError(t, a.Stop())
	})
	return a
}

func createNamespace(t *testing.T, name string, all []program) {
	t.Helper()
	var accounts []string
	for _, p := range all {
		accounts = append(accounts, p.label())
	}
	require.NoError(t, istiod.CreateNamespace(t.Context(), name, nil, accounts...))
}

// probeStatus returns the HTTP status that the kubelet's readiness probe would get; 0
// without an answer.
func probeStatus(ctx context.Context, a *istio.Agent) int {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, a.Ready, http.NoBody)
	if err != nil {
		return 0
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0
	}
	_ = response.Body.Close()
	return response.StatusCode
}

// readBundle validates the files that an agent wrote.
func readBundle(ctx context.Context, a *istio.Agent, namespace string, p program) (*certs.Bundle, error) {
	var content [3][]byte
	for i, name := range certificateFiles {
		var err error
		if content[i], err = os.ReadFile(filepath.Join(a.Dir, name)); err != nil {
			return nil, err
		}
	}
	published, err := istiod.Roots(ctx, namespace)
	if err != nil {
		return nil, err
	}
	roots, err := certs.ParseCertificates(published)
	if err != nil {
		return nil, err
	}
	id, err := certs.Identity(istio.TrustDomain, namespace, p.label())
	if err != nil {
		return nil, err
	}
	return certs.New(certs.Material{Key: content[0], Chain: content[1], Roots: content[2]}, certs.Want{ID: id, Roots: roots, Now: time.Now()})
}

// writtenFolders lists the folders beside the agent's own in which the agent has files. The
// agent writes to relative paths. In a container they are below the root folder, which is
// read-only except for its mounts.
func writtenFolders(t *testing.T, root string) []string {
	t.Helper()
	var folders []string
	require.NoError(t, filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		folder, err := filepath.Rel(root, filepath.Dir(path))
		if folder = filepath.ToSlash(folder); !strings.HasPrefix(folder, "var/run/secrets/") || !mountedFiles[filepath.Base(path)] {
			folders = append(folders, folder)
		}
		return err
	}))
	slices.Sort(folders)
	return slices.Compact(folders)
}

// mountedFiles are the files that are mounted for the agent.
var mountedFiles = map[string]bool{"istio-token": true, "root-cert.pem": true}

// The agents start while istiod is down, so none of them can have a certificate: the
// readiness probe fails and there are no files. Then istiod comes back.
func TestAgentsAreReadyWithTheirFilesAndRotateThem(t *testing.T) {
	const ns, ttl = "versions", 30 * time.Second
	all := programs(t)
	createNamespace(t, ns, all)
	t.Cleanup(func() { // so that the next test finds istiod, whatever happened
		if t.Failed() {
			assert.NoError(t, istiod.Restart(context.WithoutCancel(t.Context())))
		}
	})
	istiod.Kill()
	agents := map[program]*istio.Agent{}
	for _, p := range all {
		agents[p] = launchAgent(t, ns, p, ttl)
	}
	for p, a := range agents {
		require.Eventually(t, func() bool { return probeStatus(t.Context(), a) != 0 }, time.Minute, 20*time.Millisecond, p.version)
		assert.Equal(t, http.StatusServiceUnavailable, probeStatus(t.Context(), a), p.version)
		for _, name := range certificateFiles {
			assert.NoFileExists(t, filepath.Join(a.Dir, name), p.version)
		}
	}
	require.NoError(t, istiod.Restart(t.Context()))

	first := map[program]*certs.Bundle{}
	for p, a := range agents {
		require.NoError(t, a.AwaitReady(t.Context()), p.version)
		var err error
		first[p], err = readBundle(t.Context(), a, ns, p)
		require.NoError(t, err, p.version)
		assert.WithinDuration(t, time.Now().Add(ttl), first[p].NotAfter(), 10*time.Second, "%s does not request the lifetime in SECRET_TTL", p.version)
		for _, name := range certificateFiles {
			info, err := os.Stat(filepath.Join(a.Dir, name))
			require.NoError(t, err, p.version)
			assert.Equal(t, os.FileMode(0o644), info.Mode().Perm(), "%s: %s", p.version, name)
		}
	}
	for p, a := range agents {
		var next *certs.Bundle
		require.Eventually(t, func() bool {
			b, err := readBundle(t.Context(), a, ns, p)
			next = b
			return err == nil && b.Serial() != first[p].Serial()
		}, ttl, 20*time.Millisecond, p.version)
		after := next.NotAfter().Sub(first[p].NotAfter())
		assert.InDelta(t, ttl.Seconds()/2, after.Seconds(), 4, "%s does not rotate at half of the life", p.version)
		assert.Equal(t, http.StatusOK, probeStatus(t.Context(), a), p.version)
		assert.Equal(t, []string{"certs", "etc/istio/proxy"}, writtenFolders(t, filepath.Dir(a.Dir)), p.version)
		t.Logf("%s: ready %s after its start, rotated after %s", p.version, a.StartDuration.Round(time.Millisecond), after)
	}
}

// istiod gets another CA and the kubelet the new roots, as when the root of a cluster is
// replaced in one step.
func TestAgentsFollowNewRoots(t *testing.T) {
	const ns, ttl = "new-roots", 20 * time.Second
	var all []program
	for _, p := range programs(t) {
		if agent, _ := patches.AgentFromImage(p.image()); agent.Supports("reconnect after a change of istiod's roots") {
			all = append(all, p)
		}
	}
	createNamespace(t, ns, all)
	t.Cleanup(func() {
		istiod.Options.CA = nil
		assert.NoError(t, istiod.Restart(context.WithoutCancel(t.Context())))
	})
	agents := map[program]*istio.Agent{}
	for _, p := range all {
		agents[p] = launchAgent(t, ns, p, ttl)
		require.NoError(t, agents[p].AwaitReady(t.Context()))
	}
	root := certtest.NewAuthority(t, certtest.CommonName("the new one"))
	istiod.Kill()
	istiod.Options.CA = istio.NewCA(root.Intermediate(t), root)
	require.NoError(t, istiod.Restart(t.Context()))
	for p, a := range agents {
		require.Eventually(t, func() bool { return a.RefreshRoots(t.Context()) == nil }, time.Minute, 20*time.Millisecond)
		require.Eventually(t, func() bool {
			b, err := readBundle(t.Context(), a, ns, p)
			return err == nil && bytes.Equal(b.Roots(), root.CertificatePEM)
		}, 2*time.Minute, 50*time.Millisecond, p.version)
	}
}
