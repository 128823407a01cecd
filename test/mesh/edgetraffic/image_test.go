package edgetraffic

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/isthmus-mesh/isthmus/test/framework/controlplane"
)

// edgeImage is the folder of the edge's image, unpacked once for all tests.
var edgeImage = sync.OnceValues(func() (string, error) {
	tarball, err := buildImage(context.Background(), "edge")
	if err != nil {
		return "", err
	}
	root, err := os.MkdirTemp("", "edge-")
	if err != nil {
		return "", err
	}
	return root, unpack(tarball, root)
})

func TestMain(m *testing.M) {
	code := m.Run()
	if root, err := edgeImage(); err == nil {
		_ = os.RemoveAll(root)
	}
	os.Exit(code)
}

// buildImage returns the path of the tarball of an image of test/tools/cluster.
func buildImage(ctx context.Context, name string) (string, error) {
	command := exec.CommandContext(ctx, "go", "-C", filepath.Join("..", "..", "tools", "cluster"), "run", ".", "images", name)
	command.Stderr = os.Stderr
	out, err := command.Output()
	return strings.TrimSpace(string(out)), err
}

// unpack unpacks an image as a container runtime does.
func unpack(tarball, root string) error {
	parts := map[string][]byte{}
	file, err := os.Open(tarball)
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }()
	err = forEachEntry(file, func(h *tar.Header, content io.Reader) error {
		parts[h.Name], err = io.ReadAll(content)
		return err
	})
	if err != nil {
		return err
	}
	var manifest []struct{ Layers []string }
	if err := json.Unmarshal(parts["manifest.json"], &manifest); err != nil {
		return err
	}
	for _, layer := range manifest[0].Layers {
		content, err := gzip.NewReader(strings.NewReader(string(parts[layer])))
		if err != nil {
			return err
		}
		if err := forEachEntry(content, func(h *tar.Header, content io.Reader) error { return extractEntry(root, h, content) }); err != nil {
			return fmt.Errorf("layer %s: %w", layer, err)
		}
	}
	return nil
}

func forEachEntry(archive io.Reader, do func(*tar.Header, io.Reader) error) error {
	for reader := tar.NewReader(archive); ; {
		header, err := reader.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := do(header, reader); err != nil {
			return err
		}
	}
}

func extractEntry(root string, h *tar.Header, content io.Reader) error {
	path := filepath.Join(root, h.Name)
	if h.Typeflag == tar.TypeDir {
		return os.MkdirAll(path, 0o755)
	}
	file, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, h.FileInfo().Mode())
	if err != nil {
		return err
	}
	_, err = io.Copy(file, content)
	return errors.Join(err, file.Close())
}

// haproxyScript returns a program that runs the image's HAProxy with the image's loader and
// libraries, and none of this machine's.
func haproxyScript(t *testing.T, root string) string {
	t.Helper()
	loaders, err := filepath.Glob(filepath.Join(root, "lib*", "ld-linux*"))
	require.NoError(t, err)
	require.Len(t, loaders, 1)
	folders, err := filepath.Glob(filepath.Join(root, "*", "*-linux-gnu*"))
	require.NoError(t, err)
	more, err := filepath.Glob(filepath.Join(root, "usr", "lib", "*-linux-gnu*"))
	require.NoError(t, err)
	run := []string{loaders[0], "--inhibit-cache", "--library-path", strings.Join(append(folders, more...), ":")}
	program := filepath.Join(root, "usr", "sbin", "haproxy")

	listed, err := exec.Command(run[0], append(run[1:], "--list", program)...).CombinedOutput()
	require.NoError(t, err, "%s", listed)
	for line := range strings.Lines(string(listed)) {
		if _, found, ok := strings.Cut(line, " => "); ok {
			require.True(t, strings.HasPrefix(found, root), "not of the image: %s", line)
		}
	}
	script := filepath.Join(t.TempDir(), "haproxy")
	run = append(run, program)
	require.NoError(t, os.WriteFile(script, []byte("#!/bin/sh\nexec '"+strings.Join(run, "' '")+`' "$@"`+"\n"), 0o755))
	return script
}

// toolPath returns the path of a program of test/tools/cluster.
func toolPath(t *testing.T, name string) string {
	t.Helper()
	path, err := controlplane.Tool(t.Context(), name)
	require.NoError(t, err)
	return path
}
