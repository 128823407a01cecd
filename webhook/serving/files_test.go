package serving

import (
	"context"
	"crypto/x509"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/go-logr/logr/funcr"
	"github.com/go-logr/logr/testr"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/isthmus-mesh/isthmus/test/framework/certtest"
)

// mount is a mounted Secret as the kubelet writes it: files are symlinks into ..data,
// a symlink that is swapped.
type mount struct {
	t        *testing.T
	folder   string
	versions int
}

func newMount(t *testing.T) *mount { return &mount{t: t, folder: t.TempDir()} }

func (m *mount) file(name string) string { return filepath.Join(m.folder, name) }

func (m *mount) write(certificate, key []byte) {
	m.t.Helper()
	m.versions++
	version := time.Unix(int64(m.versions), 0).UTC().Format("..2006_01_02_15_04_05")
	require.NoError(m.t, os.Mkdir(m.file(version), 0o755))
	require.NoError(m.t, os.WriteFile(filepath.Join(m.folder, version, "tls.crt"), certificate, 0o600))
	require.NoError(m.t, os.WriteFile(filepath.Join(m.folder, version, "tls.key"), key, 0o600))
	before, _ := os.Readlink(m.file("..data"))
	require.NoError(m.t, os.Symlink(version, m.file("..data_tmp")))
	require.NoError(m.t, os.Rename(m.file("..data_tmp"), m.file("..data")))
	for _, name := range []string{"tls.crt", "tls.key"} {
		if _, err := os.Lstat(m.file(name)); os.IsNotExist(err) {
			require.NoError(m.t, os.Symlink(filepath.Join("..data", name), m.file(name)))
		}
	}
	if before != "" {
		require.NoError(m.t, os.RemoveAll(m.file(before)))
	}
}

// start starts a source of the files, in a cluster whose configurations trust the root;
// with nil they have no caBundle yet.
func (m *mount) start(trusted *certtest.Pair) *FileSource {
	m.t.Helper()
	c := newCluster(m.t)
	if trusted != nil {
		c.trust(trusted, mutating, validating)
	}
	return m.startIn(c, testr.New(m.t))
}

func (m *mount) startIn(c *cluster, log logr.Logger) *FileSource {
	m.t.Helper()
	f, err := NewFileSource(FileOptions{
		CertFile: m.file("tls.crt"), KeyFile: m.file("tls.key"), Client: c, ConfigurationName: testConfiguration, Log: log,
	})
	require.NoError(m.t, err)
	f.interval = 10 * time.Millisecond
	ctx, cancel := context.WithCancel(context.Background())
	var ended sync.WaitGroup
	ended.Go(func() { assert.NoError(m.t, f.Start(ctx)) })
	m.t.Cleanup(func() {
		cancel()
		ended.Wait()
	})
	return f
}

// trust writes the root, or nothing, as caBundle into all webhooks of the configurations.
func (c *cluster) trust(root *certtest.Pair, kinds ...string) {
	c.t.Helper()
	var bundle []byte
	if root != nil {
		bundle = root.CertificatePEM
	}
	client, ctx := c.AdmissionregistrationV1(), c.t.Context()
	if slices.Contains(kinds, mutating) {
		found, err := client.MutatingWebhookConfigurations().Get(ctx, testConfiguration, metav1.GetOptions{})
		require.NoError(c.t, err)
		for i := range found.Webhooks {
			found.Webhooks[i].ClientConfig.CABundle = bundle
		}
		_, err = client.MutatingWebhookConfigurations().Update(ctx, found, metav1.UpdateOptions{})
		require.NoError(c.t, err)
	}
	if slices.Contains(kinds, validating) {
		found, err := client.ValidatingWebhookConfigurations().Get(ctx, testConfiguration, metav1.GetOptions{})
		require.NoError(c.t, err)
		for i := range found.Webhooks {
			found.Webhooks[i].ClientConfig.CABundle = bundle
		}
		_, err = client.ValidatingWebhookConfigurations().Update(ctx, found, metav1.UpdateOptions{})
		require.NoError(c.t, err)
	}
}

// served are the options of a leaf for the URL of newCluster's webhooks.
func served() certtest.Option { return certtest.IPAddresses(net.IPv4(127, 0, 0, 1)) }

func serves(f *FileSource, want *x509.Certificate) func() bool {
	return func() bool {
		pair, err := f.GetCertificate(nil)
		return err == nil && pair.Leaf.Equal(want)
	}
}

func TestFileSourceReloadsChangedFiles(t *testing.T) {
	root := certtest.NewAuthority(t)
	first, second := root.Leaf(t, served()), root.Leaf(t, served())
	m := newMount(t)
	m.write(first.ChainPEM, first.KeyPEM)
	f := m.start(root)
	require.Eventually(t, serves(f, first.Certificate), 5*time.Second, 5*time.Millisecond)
	assert.EventuallyWithT(t, func(c *assert.CollectT) { assert.NoError(c, f.Ready()) }, 5*time.Second, 5*time.Millisecond)

	m.write(second.ChainPEM, second.KeyPEM)
	// certwatcher polls every ten seconds, in case the swap raced with its watch.
	assert.Eventually(t, serves(f, second.Certificate), 15*time.Second, 5*time.Millisecond)
}

func TestFileSourceKeepsTheLastGoodPair(t *testing.T) {
	root := certtest.NewAuthority(t)
	good, other, last := root.Leaf(t), root.Leaf(t), root.Leaf(t)
	m := newMount(t)
	m.write(good.ChainPEM, good.KeyPEM)
	f := m.start(nil)
	require.Eventually(t, serves(f, good.Certificate), 5*time.Second, 5*time.Millisecond)

	m.write(other.ChainPEM, good.KeyPEM)
	assert.Never(t, func() bool { return !serves(f, good.Certificate)() }, 200*time.Millisecond, 5*time.Millisecond)
	m.write(last.ChainPEM, last.KeyPEM)
	assert.Eventually(t, serves(f, last.Certificate), 15*time.Second, 5*time.Millisecond)
}

func TestFileSourceReportsMissingAndExpiredFiles(t *testing.T) {
	_, err := NewFileSource(FileOptions{CertFile: "tls.crt"})
	assert.EqualError(t, err, `serving certificate: want a certificate file and a key file, got "tls.crt" and ""`)
	_, err = NewFileSource(FileOptions{CertFile: "tls.crt", KeyFile: "tls.key"})
	assert.EqualError(t, err, "serving certificate: no client given")
	_, err = NewFileSource(FileOptions{CertFile: "tls.crt", KeyFile: "tls.key", Client: newCluster(t)})
	assert.EqualError(t, err, "serving certificate: no configuration name given")

	m := newMount(t)
	f := m.start(nil)
	assert.EventuallyWithT(t, func(c *assert.CollectT) {
		assert.EqualError(c, f.Ready(), "no serving certificate yet: open "+m.file("tls.crt")+": no such file or directory")
	}, 5*time.Second, 5*time.Millisecond)

	expired := certtest.NewAuthority(t).Leaf(t, certtest.Validity(time.Now().Add(-2*time.Hour), time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)))
	m.write(expired.ChainPEM, expired.KeyPEM)
	assert.EventuallyWithT(t, func(c *assert.CollectT) {
		assert.EqualError(c, f.Ready(), "the serving certificate in "+m.file("tls.crt")+" expired at 2026-01-01T00:00:00Z")
	}, 5*time.Second, 5*time.Millisecond)
}

// A replica is ready when API servers can verify it for the first time, and as long as
// they can for pods.
func TestFileSourceIsReadyWhenAPIServersTrustIt(t *testing.T) {
	root, other := certtest.NewAuthority(t), certtest.NewAuthority(t)
	leaf, next := root.Leaf(t, served()), other.Leaf(t, served())
	m, c, log := newMount(t), newCluster(t), &lines{}
	m.write(leaf.ChainPEM, leaf.KeyPEM)
	f := m.startIn(c, funcr.New(log.add, funcr.Options{}))
	require.Eventually(t, serves(f, leaf.Certificate), 5*time.Second, 5*time.Millisecond)
	expect := func(want string) {
		t.Helper()
		require.EventuallyWithT(t, func(c *assert.CollectT) {
			if want == "" {
				assert.NoError(c, f.Ready())
				return
			}
			assert.ErrorContains(c, f.Ready(), strings.ReplaceAll(want, `\`, ""))
			assert.Contains(c, log.String(), want, "the log says so too")
		}, 15*time.Second, 5*time.Millisecond)
	}

	expect(`not ready: webhook \"namespace.isthmus.dev\" of mutatingwebhookconfiguration \"isthmus-webhook\" has no caBundle yet`)
	c.trust(root, mutating)
	expect(`not ready: webhook \"template.isthmus.dev\" of validatingwebhookconfiguration \"isthmus-webhook\" has no caBundle yet`)
	c.trust(root, validating)
	expect("")
	c.trust(other, validating)
	assert.Never(t, func() bool { return f.Ready() != nil }, 200*time.Millisecond, 5*time.Millisecond, "pods are reviewed all the same")
	c.trust(other, mutating)
	expect(`not ready: the caBundle of webhook \"namespace.isthmus.dev\" of mutatingwebhookconfiguration \"isthmus-webhook\" does not verify the serving certificate`)
	m.write(next.ChainPEM, next.KeyPEM)
	expect("")
}

// lines collects the lines of a log.
type lines struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *lines) add(_, arguments string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.text.WriteString(arguments + "\n")
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}
