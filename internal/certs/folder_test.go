package certs_test

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr/testr"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/isthmus-mesh/isthmus/internal/certs"
	"github.com/isthmus-mesh/isthmus/test/framework/certtest"
)

// limit is the timeout for what takes milliseconds on an idle machine.
const limit = 20 * time.Second

// folder is a directory whose files are written as Istio's agent does.
type folder string

// put writes like file.AtomicWrite of Istio: a temporary file, then a rename.
func (f folder) put(t testing.TB, name string, data []byte) {
	t.Helper()
	temporary, err := os.CreateTemp(string(f), name+".tmp.")
	require.NoError(t, err)
	_, err = temporary.Write(data)
	require.NoError(t, err)
	require.NoError(t, temporary.Close())
	require.NoError(t, os.Rename(temporary.Name(), f.file(name)))
}

func (f folder) file(name string) string { return filepath.Join(string(f), name) }

// rotate writes the three files in the given order, by default the agent's.
func (f folder) rotate(t testing.TB, p *certtest.Pair, root *certtest.Pair, order ...string) {
	t.Helper()
	if len(order) == 0 {
		order = []string{certs.KeyFile, certs.ChainFile, certs.RootFile}
	}
	for _, name := range order {
		f.put(t, name, map[string][]byte{
			certs.KeyFile: p.KeyPEM, certs.ChainFile: joined(p, root), certs.RootFile: root.CertificatePEM,
		}[name])
	}
}

// mounted is a directory whose files are written as the kubelet does (AtomicWriter).
type mounted struct {
	folder
	versions int
}

func (m *mounted) put(t testing.TB, files map[string][]byte) {
	t.Helper()
	m.versions++
	version := time.Unix(int64(m.versions), 0).UTC().Format("..2006_01_02_15_04_05.000000000")
	require.NoError(t, os.Mkdir(m.file(version), 0o755))
	for name, data := range files {
		require.NoError(t, os.WriteFile(filepath.Join(m.file(version), name), data, 0o600))
	}
	before, _ := os.Readlink(m.file("..data"))
	require.NoError(t, os.Symlink(version, m.file("..data_tmp")))
	require.NoError(t, os.Rename(m.file("..data_tmp"), m.file("..data")))
	for name := range files {
		if _, err := os.Lstat(m.file(name)); os.IsNotExist(err) {
			require.NoError(t, os.Symlink(filepath.Join("..data", name), m.file(name)))
		}
	}
	if before != "" {
		require.NoError(t, os.RemoveAll(m.file(before)))
	}
}

// runningDirectory is a Directory that runs.
type runningDirectory struct {
	*certs.Directory
	t    testing.TB
	stop func()

	mu         sync.Mutex
	rejected   []error
	clockReads int
	now        func() time.Time
}

// follow runs a Directory without a poll, unless the option asks for one.
func follow(t testing.TB, o certs.DirectoryOptions, prepare ...func(*certs.Directory)) *runningDirectory {
	t.Helper()
	f := &runningDirectory{t: t, now: func() time.Time { return noon }}
	o.ID = spiffeid.RequireFromString(edge)
	if o.Poll == 0 {
		o.Poll = time.Hour
	}
	o.Now = func() time.Time {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.clockReads++
		return f.now()
	}
	o.Rejected = func(err error) {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.rejected = append(f.rejected, err)
	}
	if test, ok := t.(*testing.T); ok {
		o.Log = testr.New(test)
	}
	f.Directory = certs.NewDirectory(o)
	for _, p := range prepare {
		p(f.Directory)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var ended sync.WaitGroup
	ended.Go(func() { assert.NoError(t, f.Run(ctx)) })
	f.stop = func() {
		cancel()
		ended.Wait()
	}
	t.Cleanup(f.stop)
	return f
}

func (f *runningDirectory) rejections() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	texts := []string{}
	for _, err := range f.rejected {
		texts = append(texts, err.Error())
	}
	return texts
}

// reads counts the reads that found all files.
func (f *runningDirectory) reads() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.clockReads
}

func (f *runningDirectory) at(now time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.now = func() time.Time { return now }
}

func (f *runningDirectory) holds(p *certtest.Pair) bool {
	b := f.Latest()
	return b != nil && b.Serial() == serial(p)
}

func (f *runningDirectory) awaitBundle(p *certtest.Pair) {
	f.t.Helper()
	require.Eventually(f.t, func() bool { return f.holds(p) }, limit, time.Millisecond)
	assert.True(f.t, bytes.Equal(p.KeyPEM, f.Latest().Key()))
}

func (f *runningDirectory) awaitRejections(texts ...string) {
	f.t.Helper()
	require.Eventually(f.t, func() bool { return len(f.rejections()) >= len(texts) }, limit, 5*time.Millisecond)
	require.Equal(f.t, texts, f.rejections())
}

// inotify counts this process's inotify instances and their watches.
func inotify(t testing.TB) (instances, watches int) {
	t.Helper()
	found, err := filepath.Glob("/proc/self/fd/*")
	require.NoError(t, err)
	for _, fd := range found {
		if to, _ := os.Readlink(fd); !strings.Contains(to, "inotify") {
			continue
		}
		instances++
		info, err := os.ReadFile("/proc/self/fdinfo/" + filepath.Base(fd))
		require.NoError(t, err)
		watches += strings.Count(string(info), "inotify wd:")
	}
	return instances, watches
}

// leftovers lists the goroutines of Directory and fsnotify.
func leftovers() []string {
	buf := make([]byte, 1<<20)
	var found []string
	for _, stack := range strings.Split(string(buf[:runtime.Stack(buf, true)]), "\n\n") {
		if strings.Contains(stack, "certs.(*Directory)") || strings.Contains(stack, "fsnotify.") {
			found = append(found, stack)
		}
	}
	return found
}

func report(b *testing.B, durations []time.Duration) {
	slices.Sort(durations)
	b.ReportMetric(float64(durations[len(durations)/2].Microseconds()), "p50-µs")
	b.ReportMetric(float64(durations[len(durations)*99/100].Microseconds()), "p99-µs")
	b.ReportMetric(float64(durations[len(durations)-1].Microseconds()), "max-µs")
}
