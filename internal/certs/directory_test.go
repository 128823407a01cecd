package certs_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/isthmus-mesh/isthmus/internal/certs"
	"github.com/isthmus-mesh/isthmus/test/framework/certtest"
)

func TestDirectoryFollowsRotations(t *testing.T) {
	root := authority(t, "mesh root")
	for name, order := range map[string][]string{
		"if the agent writes, expect every certificate": {certs.KeyFile, certs.ChainFile, certs.RootFile},
		"if the order is reversed, expect the same":     {certs.RootFile, certs.ChainFile, certs.KeyFile},
	} {
		t.Run(name, func(t *testing.T) {
			dir := folder(t.TempDir())
			f := follow(t, certs.DirectoryOptions{Path: string(dir)})
			assert.Nil(t, f.Latest())
			for range 10 {
				leaf := leafOf(t, root)
				dir.rotate(t, leaf, root, order...)
				f.awaitBundle(leaf)
				<-f.Changed()
			}
			assert.Empty(t, f.rejections(), "a rotation is torn for a moment")
			assert.NoError(t, f.Problem())
		})
	}
}

func TestDirectoryReadsExistingFiles(t *testing.T) {
	t.Parallel() // with the tests that do not count goroutines and watches
	root := authority(t, "mesh root")
	dir, leaf := folder(t.TempDir()), leafOf(t, root)
	dir.rotate(t, leaf, root)
	f := follow(t, certs.DirectoryOptions{Path: string(dir)})
	<-f.Changed()
	assert.True(t, f.holds(leaf))
}

func TestDirectoryCoalescesChanges(t *testing.T) {
	t.Parallel() // with the tests that do not count goroutines and watches
	root := authority(t, "mesh root")
	dir := folder(t.TempDir())
	f := follow(t, certs.DirectoryOptions{Path: string(dir)})
	for range 3 {
		leaf := leafOf(t, root)
		dir.rotate(t, leaf, root)
		f.awaitBundle(leaf)
	}
	require.Len(t, f.Changed(), 1)
	<-f.Changed()
	// The files are the same, but for their times.
	before := f.reads()
	dir.put(t, certs.RootFile, root.CertificatePEM)
	require.Eventually(t, func() bool { return f.reads() > before }, limit, time.Millisecond)
	f.stop()
	assert.Empty(t, f.Changed())
}

func TestDirectoryWaitsWhileThePairIsTorn(t *testing.T) {
	t.Parallel() // with the tests that do not count goroutines and watches
	root := authority(t, "mesh root")
	dir := folder(t.TempDir())
	first, second := leafOf(t, root), leafOf(t, root)
	dir.rotate(t, first, root)
	f := follow(t, certs.DirectoryOptions{Path: string(dir)}, (*certs.Directory).NeverReject)
	f.awaitBundle(first)

	dir.put(t, certs.KeyFile, second.KeyPEM)
	before := f.reads()
	require.Eventually(t, func() bool { return f.reads() > before+3 }, limit, time.Millisecond)
	assert.True(t, f.holds(first))
	dir.put(t, certs.ChainFile, joined(second, root))
	f.awaitBundle(second)
	assert.Empty(t, f.rejections())
	assert.NoError(t, f.Problem())
}

func TestDirectoryRejectsATornPairOnce(t *testing.T) {
	t.Parallel() // with the tests that do not count goroutines and watches
	root := authority(t, "mesh root")
	dir := folder(t.TempDir())
	first, second := leafOf(t, root), leafOf(t, root)
	dir.rotate(t, first, root)
	f := follow(t, certs.DirectoryOptions{Path: string(dir), Poll: 20 * time.Millisecond})
	f.awaitBundle(first)

	dir.put(t, certs.KeyFile, second.KeyPEM)
	torn := string(dir) + ": key-mismatch: the private key does not belong to the certificate with serial " + serial(first)
	f.awaitRejections(torn)
	assert.EqualError(t, f.Problem(), torn)
	assert.True(t, f.holds(first))
	before := f.reads()
	require.Eventually(t, func() bool { return f.reads() > before+10 }, limit, time.Millisecond)
	f.awaitRejections(torn)

	dir.put(t, certs.ChainFile, joined(second, root))
	f.awaitBundle(second)
	require.Eventually(t, func() bool { return f.Problem() == nil }, limit, time.Millisecond)

	// The same content again is another incident.
	dir.put(t, certs.ChainFile, joined(first, root))
	f.awaitRejections(torn, torn)
}

func TestDirectoryKeepsTheLastValidBundle(t *testing.T) {
	t.Parallel() // with the tests that do not count goroutines and watches
	root, stranger := authority(t, "mesh root"), authority(t, "strange root")
	leaf, next := leafOf(t, root), leafOf(t, root)
	others := root.SPIFFELeaf(t, "spiffe://cluster.local/ns/edge/sa/other", around(time.Hour, time.Hour))
	write := func(name string, data []byte) func(*testing.T, folder) {
		return func(t *testing.T, dir folder) {
			t.Helper()
			require.NoError(t, os.WriteFile(dir.file(name), data, 0o600))
		}
	}
	replace := func(name string, create func(string) error) func(*testing.T, folder) {
		return func(t *testing.T, dir folder) {
			t.Helper()
			require.NoError(t, os.Remove(dir.file(name)))
			require.NoError(t, create(dir.file(name)))
		}
	}
	for name, test := range map[string]struct {
		spoil  func(*testing.T, folder)
		expect string // after the directory
	}{
		"if the pair is another account's, expect wrong-identity": {
			func(t *testing.T, dir folder) { dir.rotate(t, others, root) },
			`: wrong-identity: want SPIFFE ID "` + edge + `", got "spiffe://cluster.local/ns/edge/sa/other"`},
		"if the pair is of another mesh, expect untrusted": {
			func(t *testing.T, dir folder) {
				dir.rotate(t, leafOf(t, stranger), stranger, certs.KeyFile, certs.ChainFile)
			},
			`: untrusted: issuer "CN=strange root": x509: certificate signed by unknown authority`},
		"if the key is cut off, expect malformed": {write(certs.KeyFile, cutOff(leaf.KeyPEM)),
			": malformed: private key: PEM is truncated or damaged: 1 blocks begin, 0 are complete"},
		"if the chain is cut off, expect malformed": {write(certs.ChainFile, cutOff(joined(leaf, root))),
			": malformed: certificate chain: PEM is truncated or damaged: 2 blocks begin, 1 are complete"},
		"if the disk was full, expect malformed": {func(t *testing.T, dir folder) {
			for _, name := range []string{certs.KeyFile, certs.ChainFile, certs.RootFile} {
				dir.put(t, name, nil)
			}
		}, ": malformed: certificate chain: want at least one certificate in PEM, got none"},
		"if files are swapped, expect malformed": {func(t *testing.T, dir folder) {
			dir.put(t, certs.KeyFile, leaf.ChainPEM)
			dir.put(t, certs.ChainFile, leaf.KeyPEM)
		}, `: malformed: certificate chain: want blocks CERTIFICATE, got "PRIVATE KEY"`},
		"if the key is a pipe, expect malformed": {
			replace(certs.KeyFile, func(path string) error { return syscall.Mkfifo(path, 0o600) }),
			"/key.pem: malformed: want a regular file, got prw-------"},
		"if the chain is a device, expect malformed": {
			replace(certs.ChainFile, func(path string) error { return os.Symlink("/dev/zero", path) }),
			"/cert-chain.pem: malformed: want a regular file, got Dcrw-rw-rw-"},
		"if the roots are a directory, expect malformed": {
			replace(certs.RootFile, func(path string) error { return os.Mkdir(path, 0o700) }),
			"/root-cert.pem: malformed: want a regular file, got drwx------"},
		"if the key is a link to itself, expect malformed": {
			replace(certs.KeyFile, func(path string) error { return os.Symlink(path, path) }),
			"/key.pem: malformed: cannot be read: too many levels of symbolic links"},
		"if the chain is huge, expect malformed": {
			func(t *testing.T, dir folder) { require.NoError(t, os.Truncate(dir.file(certs.ChainFile), 1<<40)) },
			"/cert-chain.pem: malformed: want a file of at most 1048576 bytes, got 1099511627776"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := folder(t.TempDir())
			dir.rotate(t, leaf, root)
			f := follow(t, certs.DirectoryOptions{Path: string(dir)})
			f.awaitBundle(leaf)
			test.spoil(t, dir)
			f.awaitRejections(string(dir) + test.expect)
			assert.EqualError(t, f.Problem(), string(dir)+test.expect)
			assert.NotEmpty(t, certs.ReasonOf(f.Problem()))
			assert.True(t, f.holds(leaf), "the valid one stays")
			require.Len(t, f.Changed(), 1)
			<-f.Changed()

			_ = os.Remove(dir.file(certs.RootFile)) // a directory is in the way of a rename
			dir.rotate(t, next, root)
			f.awaitBundle(next)
			require.Eventually(t, func() bool { return f.Problem() == nil }, limit, time.Millisecond)
		})
	}
}

func TestDirectoryReportsFlappingOnce(t *testing.T) {
	t.Parallel() // with the tests that do not count goroutines and watches
	root := authority(t, "mesh root")
	dir, leaf := folder(t.TempDir()), leafOf(t, root)
	dir.rotate(t, leaf, root)
	f := follow(t, certs.DirectoryOptions{Path: string(dir), Poll: 5 * time.Millisecond})
	f.awaitBundle(leaf)
	var want []string
	for _, broken := range []string{"a", "b", "a", "b"} {
		dir.put(t, certs.ChainFile, []byte(broken))
		text := string(dir) + ": malformed: certificate chain: want at least one certificate in PEM, got none"
		if len(want) < 2 {
			want = append(want, text)
			f.awaitRejections(want...)
			continue
		}
		before := f.reads()
		require.Eventually(t, func() bool { return f.reads() > before+130 }, limit, time.Millisecond) // well over the timeout
		f.awaitRejections(want...)
	}
}

func TestDirectoryRejectsWhatExpires(t *testing.T) {
	t.Parallel() // with the tests that do not count goroutines and watches
	root := authority(t, "mesh root")
	dir, early := folder(t.TempDir()), leafOf(t, root, around(-time.Minute, time.Hour))
	dir.rotate(t, early, root)
	f := follow(t, certs.DirectoryOptions{Path: string(dir), Poll: 5 * time.Millisecond})
	young := string(dir) + ": not-yet-valid: valid from 2026-03-01T12:01:00Z"
	f.awaitRejections(young)
	assert.Nil(t, f.Latest())

	f.at(noon.Add(time.Minute))
	f.awaitBundle(early)
	require.Eventually(t, func() bool { return f.Problem() == nil }, limit, time.Millisecond)

	f.at(noon.Add(2 * time.Hour))
	f.awaitRejections(young, string(dir)+": expired: valid until 2026-03-01T13:00:00Z, and the last 1m0s do not count")
	assert.True(t, f.holds(early))
}

func TestDirectoryFollowsTheRootsOfTheMesh(t *testing.T) {
	t.Parallel() // with the tests that do not count goroutines and watches
	old, next := authority(t, "old root"), authority(t, "next root")
	leaf := leafOf(t, old)
	dir, anchors := folder(t.TempDir()), mounted{folder: folder(t.TempDir())}
	dir.rotate(t, leaf, old)
	file := anchors.file("root-cert.pem")
	f := follow(t, certs.DirectoryOptions{Path: string(dir), RootsFile: file})
	require.Eventually(t, func() bool { return f.Problem() != nil }, limit, time.Millisecond)
	assert.EqualError(t, f.Problem(), file+": file does not exist")
	assert.Nil(t, f.Latest(), "no root but the directory's own verifies it")

	holdsRoots := func(roots ...*certtest.Pair) func() bool {
		return func() bool {
			return f.holds(leaf) && len(serials(t, f.Latest().Roots())) == len(roots)
		}
	}
	anchors.put(t, map[string][]byte{"root-cert.pem": joined(old)})
	require.Eventually(t, holdsRoots(old), limit, time.Millisecond)
	<-f.Changed()
	anchors.put(t, map[string][]byte{"root-cert.pem": joined(old, next)})
	require.Eventually(t, holdsRoots(old, next), limit, time.Millisecond)
	<-f.Changed()
	assert.Empty(t, f.rejections())

	// Invalid anchors are reported; the earlier ones still count.
	anchors.put(t, map[string][]byte{"root-cert.pem": []byte("oops")})
	f.awaitRejections(file + ": malformed: root certificates: want at least one certificate in PEM, got none")
	leaf = leafOf(t, next)
	dir.rotate(t, leaf, next)
	require.Eventually(t, holdsRoots(old, next), limit, time.Millisecond)
	assert.Error(t, f.Problem())
	require.NoError(t, os.Remove(anchors.file("..data")))
	require.Eventually(t, func() bool { return f.Problem().Error() == file+": file does not exist" }, limit, time.Millisecond)
	leaf = leafOf(t, next)
	dir.rotate(t, leaf, next)
	require.Eventually(t, holdsRoots(old, next), limit, time.Millisecond)
	anchors.put(t, map[string][]byte{"root-cert.pem": joined(next)})
	require.Eventually(t, holdsRoots(next), limit, time.Millisecond)
	require.Eventually(t, func() bool { return f.Problem() == nil }, limit, time.Millisecond)
}

func TestDirectoryFollowsTheKubelet(t *testing.T) {
	t.Parallel() // with the tests that do not count goroutines and watches
	root := authority(t, "mesh root")
	m := mounted{folder: folder(t.TempDir())}
	f := follow(t, certs.DirectoryOptions{Path: string(m.folder)})
	for range 10 {
		leaf := leafOf(t, root)
		m.put(t, map[string][]byte{certs.KeyFile: leaf.KeyPEM, certs.ChainFile: leaf.ChainPEM, certs.RootFile: root.CertificatePEM})
		f.awaitBundle(leaf)
	}
	assert.Empty(t, f.rejections())
}

func TestDirectoryMayAppearAndVanish(t *testing.T) {
	root := authority(t, "mesh root")
	base := t.TempDir()
	dir := folder(filepath.Join(base, "not", "there", "yet"))
	anchors := folder(filepath.Join(base, "not", "here", "either"))
	f := follow(t, certs.DirectoryOptions{Path: string(dir), RootsFile: anchors.file("ca.pem")})
	require.Eventually(t, func() bool { return f.Problem() != nil }, limit, time.Millisecond)
	assert.EqualError(t, f.Problem(), dir.file(certs.KeyFile)+": file does not exist")

	for i := range 10 {
		require.NoError(t, os.MkdirAll(string(dir), 0o755))
		leaf := leafOf(t, root)
		dir.rotate(t, leaf, root)
		require.NoError(t, os.MkdirAll(string(anchors), 0o755))
		anchors.put(t, "ca.pem", root.CertificatePEM)
		f.awaitBundle(leaf)
		require.Eventually(t, func() bool { _, watches := inotify(t); return watches == 2 }, limit, time.Millisecond, "one watch for each directory")
		switch i % 3 {
		case 0:
			require.NoError(t, os.RemoveAll(filepath.Join(base, "not")))
		case 1:
			require.NoError(t, os.Rename(string(dir), fmt.Sprintf("%s.%d", dir, i)))
		default:
			require.NoError(t, os.RemoveAll(string(dir)))
		}
	}
	assert.Empty(t, f.rejections())
}

func TestDirectoryIgnoresOtherNames(t *testing.T) {
	t.Parallel() // with the tests that do not count goroutines and watches
	root := authority(t, "mesh root")
	dir, leaf, next := folder(t.TempDir()), leafOf(t, root), leafOf(t, root)
	dir.rotate(t, leaf, root)
	f := follow(t, certs.DirectoryOptions{Path: string(dir)})
	f.awaitBundle(leaf)
	require.NoError(t, os.Mkdir(dir.file("..2026_03_01_12_00_00.123456789"), 0o755))
	before := f.reads()
	for i := range 500 {
		for _, name := range []string{"file%d", "key.pem.tmp.%d", ".key.pem.swp%d", "key.pem~%d", "..data_tmp%d", "..2026_03_01_12_00_00.123456789/key.pem%d"} {
			require.NoError(t, os.WriteFile(dir.file(fmt.Sprintf(name, i)), leaf.KeyPEM, 0o600))
		}
	}
	require.NoError(t, os.Chmod(dir.file(certs.KeyFile), 0o400))
	dir.rotate(t, next, root)
	f.awaitBundle(next)
	// Three renames and a few reads until the files match. The other 3,000 files cause none.
	assert.LessOrEqual(t, f.reads()-before, 20)
	assert.Empty(t, f.rejections())
}

func TestDirectoryFollowsALinkToADirectory(t *testing.T) {
	root := authority(t, "mesh root")
	first, second, third := leafOf(t, root), leafOf(t, root), leafOf(t, root)
	swap := func(poll time.Duration) (folder, *runningDirectory) {
		base := folder(t.TempDir())
		for name, p := range map[string]*certtest.Pair{"first": first, "second": second} {
			require.NoError(t, os.Mkdir(base.file(name), 0o755))
			folder(base.file(name)).rotate(t, p, root)
		}
		require.NoError(t, os.Symlink("first", base.file("link")))
		f := follow(t, certs.DirectoryOptions{Path: base.file("link"), Poll: poll})
		f.awaitBundle(first)
		// No watched directory has this change.
		require.NoError(t, os.Symlink("second", base.file("new")))
		require.NoError(t, os.Rename(base.file("new"), base.file("link")))
		return base, f
	}
	_, f := swap(50 * time.Millisecond)
	f.awaitBundle(second)
	f.stop()

	// After the next read, whatever causes it, the other directory is watched.
	base, f := swap(time.Hour)
	folder(base.file("first")).put(t, certs.RootFile, nil)
	f.awaitBundle(second)
	folder(base.file("second")).rotate(t, third, root)
	f.awaitBundle(third)
	_, watches := inotify(t)
	assert.Equal(t, 1, watches)
}

func TestDirectoryPollsWhileItCannotWatch(t *testing.T) {
	root := authority(t, "mesh root")
	dir, first, second, third := folder(t.TempDir()), leafOf(t, root), leafOf(t, root), leafOf(t, root)
	dir.rotate(t, first, root)
	var recovered atomic.Bool
	f := follow(t, certs.DirectoryOptions{Path: string(dir)}, func(d *certs.Directory) {
		d.FailWatch(func() error {
			if recovered.Load() {
				return nil
			}
			return errors.New("too many open files")
		})
	})
	f.awaitBundle(first)
	dir.rotate(t, second, root)
	f.awaitBundle(second)
	instances, _ := inotify(t)
	assert.Zero(t, instances)

	recovered.Store(true)
	require.Eventually(t, func() bool { _, watches := inotify(t); return watches == 1 }, limit, time.Millisecond)
	dir.rotate(t, third, root)
	f.awaitBundle(third)
}

func TestDirectoryLeavesNoGoroutinesAndWatches(t *testing.T) {
	// fsnotify.Close returns shortly before its goroutine has ended.
	clean := func() bool { return len(leftovers()) == 0 }
	require.Eventually(t, clean, limit, time.Millisecond)
	root := authority(t, "mesh root")
	for i := range 5 {
		dir, leaf := folder(t.TempDir()), leafOf(t, root)
		f := follow(t, certs.DirectoryOptions{Path: string(dir), RootsFile: filepath.Join(t.TempDir(), "later", "ca.pem")})
		if i%2 == 0 {
			dir.rotate(t, leaf, root)
		}
		require.Eventually(t, func() bool { _, watches := inotify(t); return watches == 2 }, limit, time.Millisecond)
		require.NotEmpty(t, leftovers(), "this test sees them")
		f.stop() // while it waits for the other files
		require.Eventually(t, clean, limit, time.Millisecond)
		instances, _ := inotify(t)
		assert.Zero(t, instances)
	}
}

func TestDirectoryEndsWhileFilesChange(t *testing.T) {
	root := authority(t, "mesh root")
	dir, leaf := folder(t.TempDir()), leafOf(t, root)
	dir.rotate(t, leaf, root)
	f := follow(t, certs.DirectoryOptions{Path: string(dir)})
	f.awaitBundle(leaf)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := range 2000 {
			_ = os.WriteFile(dir.file(certs.KeyFile), []byte(fmt.Sprint(i)), 0o600)
		}
	}()
	f.stop()
	<-done
	assert.True(t, f.holds(leaf))
}

// zeros is a file without an end.
type zeros struct{ read int }

func (z *zeros) Read(p []byte) (int, error) {
	z.read += len(p)
	return len(p), nil
}

func TestReadAllHasALimit(t *testing.T) {
	endless := &zeros{}
	_, err := certs.ReadAll(endless)
	assert.EqualError(t, err, "it has more than 1048576 bytes")
	assert.LessOrEqual(t, endless.read, 1<<20+1)
	data, err := certs.ReadAll(io.LimitReader(endless, 1<<20))
	assert.NoError(t, err)
	assert.Len(t, data, 1<<20)
}

func TestDirectoryRefusesInvalidOptions(t *testing.T) {
	assert.EqualError(t, certs.NewDirectory(certs.DirectoryOptions{}).Run(context.Background()), "certificate directory: no path")
	assert.EqualError(t, certs.NewDirectory(certs.DirectoryOptions{Path: "/etc/istio-certs"}).Run(context.Background()), "certificate directory /etc/istio-certs: no identity")
}

// BenchmarkDirectory measures the time from the rename of the agent's last file to
// the new bundle.
func BenchmarkDirectory(b *testing.B) {
	root := authority(b, "mesh root")
	dir := folder(b.TempDir())
	f := follow(b, certs.DirectoryOptions{Path: string(dir)})
	var durations []time.Duration
	leaves := []*certtest.Pair{leafOf(b, root), leafOf(b, root)}
	for i := 0; b.Loop(); i++ {
		leaf := leaves[i%2]
		dir.rotate(b, leaf, root)
		start := time.Now()
		for !f.holds(leaf) {
			<-f.Changed()
		}
		durations = append(durations, time.Since(start))
	}
	report(b, durations)
}
