package apiserver

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestIdentityIsAliveOnlyForTheSameProcess(t *testing.T) {
	self, err := identify(os.Getpid())
	if err != nil || !self.Alive() {
		t.Errorf("this process: %+v, %v, alive %v", self, err, self.Alive())
	}
	for name, identity := range map[string]Identity{
		"if it started at another time, expect dead": {PID: os.Getpid(), Started: self.Started + "1"},
		"if its start time is unknown, expect dead":  {PID: os.Getpid()},
		"if there is no such process, expect dead":   {PID: 1 << 30, Started: self.Started},
	} {
		t.Run(name, func(t *testing.T) {
			if identity.Alive() {
				t.Errorf("%+v is alive", identity)
			}
		})
	}
}

func TestZombieIsNotAlive(t *testing.T) {
	child := exec.Command("cat")
	input, err := child.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	identity, err := identify(child.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	if err := input.Close(); err != nil { // it ends, and was not waited for yet
		t.Fatal(err)
	}
	for deadline := time.Now().Add(10 * time.Second); identity.Alive(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("a zombie counts as alive")
		}
	}
	if err := child.Wait(); err != nil {
		t.Error(err)
	}
}

func TestComponentEnvironmentDropsConfiguration(t *testing.T) {
	filtered := componentEnvironment([]string{"PATH=/bin", "ETCD_NAME=x", "KUBE_FEATURE_X=true", "KUBECONFIG=y", "HOME=/h", "HTTPS_PROXY=z"})
	if want := []string{"PATH=/bin", "HOME=/h"}; !slices.Equal(filtered, want) {
		t.Errorf("environment %q, want %q", filtered, want)
	}
}

func TestAwaitReady(t *testing.T) {
	folder := t.TempDir()
	start := func(script string) *process {
		t.Helper()
		process, err := startProcess(folder, Component{Name: "etcd", Program: "/bin/sh", Arguments: []string{"-c", script}}, false)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(process.kill)
		return process
	}
	neverReady := func(context.Context) error { return errors.New("connection refused") }

	ended := start("echo one; echo two >&2; exit 3").awaitReady(t.Context(), neverReady)
	if want := "etcd ended with exit status 3; the end of its log:\none\ntwo"; ended == nil || ended.Error() != want {
		t.Errorf("process that ends: %v, want %s", ended, want)
	}

	ctx, cancel := context.WithTimeoutCause(t.Context(), 200*time.Millisecond, errors.New("gave up after 200ms"))
	defer cancel()
	silent := start("exec sleep 600").awaitReady(ctx, neverReady)
	if want := "etcd is not ready (gave up after 200ms): connection refused; the end of its log:\n"; silent == nil || !strings.HasPrefix(silent.Error(), want) {
		t.Errorf("process that never gets ready: %v, want %s", silent, want)
	}

	tries := 0
	if err := start("exec sleep 600").awaitReady(t.Context(), func(context.Context) error {
		if tries++; tries < 3 {
			return errors.New("not yet")
		}
		return nil
	}); err != nil || tries != 3 {
		t.Errorf("process that gets ready: %v after %d tries", err, tries)
	}
}

func TestTailReturnsTheLastLines(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	if err := os.WriteFile(path, []byte(strings.Repeat("x", 2*tailBytes)+"\none\ntwo\nthree\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if last := tail(path, 2); last != "two\nthree" {
		t.Errorf("tail = %q", last)
	}
	if missing := tail(path+".missing", 2); !strings.Contains(missing, "no such file") {
		t.Errorf("tail of a missing file = %q", missing)
	}
}

func TestFailedChecksShortensReadyz(t *testing.T) {
	for body, want := range map[string]string{
		"[+]ping ok\n[-]etcd failed: reason withheld\n[-]poststarthook/rbac failed\nreadyz check failed\n": "etcd failed: reason withheld; poststarthook/rbac failed",
		"not found\n": "not found",
	} {
		if shown := failedChecks(body); shown != want {
			t.Errorf("failedChecks(%q) = %q, want %q", body, shown, want)
		}
	}
}
