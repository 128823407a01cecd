package builder

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// fakeGo replaces the go command: it records its arguments, prints package names as
// the go command does, and creates the output files.
const fakeGo = `#!/bin/sh
echo "$@" >> "$FAKE_GO_CALLS"
if [ -n "$FAKE_GO_FAILS" ]; then
	echo "k8s.io/klog" >&2
	echo "main.go:1: undefined: x" >&2
	exit 1
fi
while [ "$1" != -o ]; do shift; done
output=$2
shift 2
for package in "$@"; do
	echo "$package" >&2
	name=$(basename "$package")
	[ "$name" != v3 ] || name=server
	echo built > "$output$name"
	chmod 755 "$output$name"
done
`

// builderWithFakeGo returns a builder for a made-up repository with a fake go command,
// and a function that returns the calls of that command.
func builderWithFakeGo(t *testing.T, progress io.Writer) (Builder, func() []string) {
	t.Helper()
	root, cache, path := t.TempDir(), t.TempDir(), t.TempDir()
	writeFile(t, filepath.Join(root, "test/tools/kubernetes/go.mod"), "require k8s.io/kubernetes v1.36.3\n")
	writeFile(t, filepath.Join(root, "test/tools/kubernetes/go.sum"), "")
	writeFile(t, filepath.Join(path, "go"), fakeGo)
	calls := filepath.Join(path, "calls")
	t.Setenv("PATH", path+":"+os.Getenv("PATH"))
	t.Setenv("FAKE_GO_CALLS", calls)
	return Builder{Root: root, Cache: cache, Progress: progress}, func() []string {
		content, err := os.ReadFile(calls)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
		return slices.Collect(strings.Lines(string(content)))
	}
}

func TestBuildCompilesOnce(t *testing.T) {
	var progress bytes.Buffer
	builder, calls := builderWithFakeGo(t, &progress)
	first, err := builder.Build(t.Context(), "etcd", "kubectl")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"etcd", "kubectl"} {
		if filepath.Base(first[name]) != name || !filepath.IsAbs(first[name]) {
			t.Errorf("path of %s: %q", name, first[name])
		}
		if content, err := os.ReadFile(first[name]); err != nil || string(content) != "built\n" {
			t.Errorf("%s: %q, %v", first[name], content, err)
		}
	}
	if output := progress.String(); !strings.HasPrefix(output, "building etcd, kubectl (once; minutes when cold), into "+builder.Cache) ||
		!strings.Contains(output, "building etcd, kubectl: done in 0s\n") {
		t.Errorf("progress: %s", output)
	}

	progress.Reset()
	if _, err := builder.Build(t.Context(), "kubectl", "etcd"); err != nil {
		t.Fatal(err)
	}
	if len(calls()) != 1 || progress.Len() > 0 {
		t.Errorf("the second time: calls %q, progress %q", calls(), progress.String())
	}
	if _, err := builder.Build(t.Context(), "kubectl", "kube-apiserver"); err != nil {
		t.Fatal(err)
	}
	if all := calls(); len(all) != 2 || strings.Contains(all[1], "kubectl") || !strings.Contains(all[1], "kube-apiserver") {
		t.Errorf("calls for what is missing: %q", all)
	}
}

func TestFailedBuildLeavesNothingBehind(t *testing.T) {
	builder, _ := builderWithFakeGo(t, io.Discard)
	t.Setenv("FAKE_GO_FAILS", "1")
	_, err := builder.Build(t.Context(), "etcd")
	want := "build etcd from test/tools/kubernetes: the go command ended with exit status 1\nmain.go:1: undefined: x"
	if errorText(err) != want {
		t.Errorf("error %v, want %s", err, want)
	}
	left, err := filepath.Glob(filepath.Join(builder.Cache, "building-*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	t.Setenv("FAKE_GO_FAILS", "")
	if _, err := builder.Build(t.Context(), "etcd"); err != nil {
		t.Errorf("the next build: %v", err)
	}
}

func TestBuildRejectsAnUnknownTool(t *testing.T) {
	builder, calls := builderWithFakeGo(t, io.Discard)
	if _, err := builder.Build(t.Context(), "etcd", "nonsense"); !strings.HasPrefix(errorText(err), `unknown tool "nonsense": `) {
		t.Errorf("error %v", err)
	}
	if len(calls()) > 0 {
		t.Errorf("calls %q", calls())
	}
}

// textWaiter is a writer that closes found when text was written.
type textWaiter struct {
	mu      sync.Mutex
	written strings.Builder
	text    string
	found   chan struct{}
}

func (w *textWaiter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	before := strings.Contains(w.written.String(), w.text)
	w.written.Write(p)
	if !before && strings.Contains(w.written.String(), w.text) {
		close(w.found)
	}
	return len(p), nil
}

func TestBuildWaitsForAnotherBuild(t *testing.T) {
	progress := &textWaiter{text: "waiting for another build (process ", found: make(chan struct{})}
	builder, calls := builderWithFakeGo(t, progress)
	unlock, err := lock(t.Context(), builder.Cache, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		_, err := builder.Build(t.Context(), "etcd")
		done <- err
	}()
	select {
	case <-progress.found:
	case err := <-done:
		t.Fatalf("did not wait: %v", err)
	case <-time.After(10 * time.Second):
		t.Fatal("did not report that it waits")
	}
	if len(calls()) > 0 {
		t.Errorf("built while another build ran: %q", calls())
	}
	unlock()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestWaitingForAnotherBuildEndsWithTheContext(t *testing.T) {
	builder, _ := builderWithFakeGo(t, io.Discard)
	unlock, err := lock(t.Context(), builder.Cache, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := builder.Build(ctx, "etcd"); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
}

func TestAssetsAreUsedInsteadOfBuilding(t *testing.T) {
	builder, calls := builderWithFakeGo(t, io.Discard)
	builder.Assets = t.TempDir()
	writeFile(t, filepath.Join(builder.Assets, "etcd"), "")
	paths, err := builder.Build(t.Context(), "etcd")
	if err != nil || paths["etcd"] != filepath.Join(builder.Assets, "etcd") {
		t.Errorf("Build = %v, %v", paths, err)
	}
	if err := os.WriteFile(filepath.Join(builder.Assets, "kubectl"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = builder.Build(t.Context(), "etcd", "kube-apiserver", "kubectl")
	want := "KUBEBUILDER_ASSETS=" + builder.Assets + " has no executable file kube-apiserver, kubectl: put it there, or unset KUBEBUILDER_ASSETS to build it"
	if errorText(err) != want {
		t.Errorf("error %v, want %s", err, want)
	}
	if len(calls()) > 0 {
		t.Errorf("calls %q", calls())
	}
	paths, err = builder.Build(t.Context(), "etcd", "kube-controller-manager")
	if err != nil || filepath.Dir(paths["etcd"]) != builder.Assets || !strings.HasPrefix(paths["kube-controller-manager"], builder.Cache) {
		t.Errorf("Build of a tool that the assets lack = %v, %v", paths, err)
	}
}

func TestBuildEnvironmentWithoutHome(t *testing.T) {
	t.Setenv("HOME", "")
	t.Setenv("GOCACHE", "")
	t.Setenv("GOPATH", "/given")
	environment := Builder{Cache: "/cache"}.environment()
	last := map[string]string{}
	for _, variable := range environment {
		name, value, _ := strings.Cut(variable, "=")
		last[name] = value
	}
	for name, want := range map[string]string{"GOCACHE": "/cache/go-build", "GOPATH": "/given", "CGO_ENABLED": "0", "GOOS": "", "GOFLAGS": ""} {
		if last[name] != want {
			t.Errorf("%s=%s, want %q", name, last[name], want)
		}
	}
}
