package serving

import (
	"context"
	"crypto/x509"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/go-logr/logr/testr"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

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

func (m *mount) start() *FileSource {
	m.t.Helper()
	f, err := NewFileSource(m.file("tls.crt"), m.file("tls.key"), testr.New(m.t))
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

func serves(f *FileSource, want *x509.Certificate) func() bool {
	return func() bool {
		pair, err := f.GetCertificate(nil)
		return err == nil && pair.Leaf.Equal(want)
	}
}

func TestFileSourceReloadsChangedFiles(t *testing.T) {
	root := certtest.NewAuthority(t)
	first, second := root.Leaf(t, certtest.DNSNames("isthmus")), root.Leaf(t, certtest.DNSNames("isthmus"))
	m := newMount(t)
	m.write(first.ChainPEM, first.KeyPEM)
	f := m.start()
	require.Eventually(t, serves(f, first.Certificate), 5*time.Second, 5*time.Millisecond)
	assert.NoError(t, f.Ready())

	m.write(second.ChainPEM, second.KeyPEM)
	// certwatcher polls every ten seconds, in case the swap raced with its watch.
	assert.Eventually(t, serves(f, second.Certificate), 15*time.Second, 5*time.Millisecond)
}

func TestFileSourceKeepsTheLastGoodPair(t *testing.T) {
	root := certtest.NewAuthority(t)
	good, other, last := root.Leaf(t), root.Leaf(t), root.Leaf(t)
	m := newMount(t)
	m.write(good.ChainPEM, good.KeyPEM)
	f := m.start()
	require.Eventually(t, serves(f, good.Certificate), 5*time.Second, 5*time.Millisecond)

	m.write(other.ChainPEM, good.KeyPEM)
	assert.Never(t, func() bool { return !serves(f, good.Certificate)() }, 200*time.Millisecond, 5*time.Millisecond)
	m.write(last.ChainPEM, last.KeyPEM)
	assert.Eventually(t, serves(f, last.Certificate), 15*time.Second, 5*time.Millisecond)
}

func TestFileSourceReportsMissingAndExpiredFiles(t *testing.T) {
	_, err := NewFileSource("tls.crt", "", logr.Discard())
	assert.EqualError(t, err, `serving certificate: want a certificate file and a key file, got "tls.crt" and ""`)

	m := newMount(t)
	f := m.start()
	assert.EventuallyWithT(t, func(c *assert.CollectT) {
		assert.EqualError(c, f.Ready(), "no serving certificate yet: open "+m.file("tls.crt")+": no such file or directory")
	}, 5*time.Second, 5*time.Millisecond)

	expired := certtest.NewAuthority(t).Leaf(t, certtest.Validity(time.Now().Add(-2*time.Hour), time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)))
	m.write(expired.ChainPEM, expired.KeyPEM)
	assert.EventuallyWithT(t, func(c *assert.CollectT) {
		assert.EqualError(c, f.Ready(), "the serving certificate in "+m.file("tls.crt")+" expired at 2026-01-01T00:00:00Z")
	}, 5*time.Second, 5*time.Millisecond)
}
