package apiserver

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

func TestLockFolderIsExclusiveAndClearsLeftovers(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "deep", "data")
	locked, lock, err := lockFolder(folder)
	if err != nil || locked != folder {
		t.Fatalf("lockFolder = %q, %v", locked, err)
	}
	if info, err := os.Stat(folder); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("mode %v, %v, want 0700", info.Mode(), err)
	}
	if _, _, err := lockFolder(folder); !errors.Is(err, errInUse) || err.Error() != folder+": a control plane already runs there" {
		t.Errorf("a second lock: %v", err)
	}
	if err := os.WriteFile(filepath.Join(folder, "etcd"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := lock.Close(); err != nil {
		t.Fatal(err)
	}
	_, lock, err = lockFolder(folder)
	if err != nil {
		t.Fatalf("lock after the first one was released: %v", err)
	}
	defer func() { _ = lock.Close() }()
	if entries, err := os.ReadDir(folder); err != nil || len(entries) != 1 || entries[0].Name() != lockFile {
		t.Errorf("left behind by a predecessor: %v, %v", entries, err)
	}
}

func TestLockFolderCreatesATemporaryFolderByDefault(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	folder, lock, err := lockFolder("")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = lock.Close() }()
	if matched, _ := filepath.Match(filepath.Join(os.TempDir(), "isthmus-cluster-*"), folder); !matched {
		t.Errorf("folder %s", folder)
	}
}

// A data folder is removed at the end, so a folder with other files is rejected.
func TestForeignFolderIsNeverRemoved(t *testing.T) {
	folder := t.TempDir()
	userFile := filepath.Join(folder, "user.txt")
	if err := os.WriteFile(userFile, []byte("content"), 0o600); err != nil {
		t.Fatal(err)
	}
	want := folder + " is not empty and holds no control plane: name another folder for --data"
	_, _, locked := lockFolder(folder)
	_, down := Down(folder)
	for operation, err := range map[string]error{"lockFolder": locked, "Down": down, "remove": removeFolder(folder)} {
		if err == nil || err.Error() != want {
			t.Errorf("%s: error %v, want %s", operation, err, want)
		}
	}
	if content, err := os.ReadFile(userFile); err != nil || string(content) != "content" {
		t.Errorf("the user's file: %q, %v", content, err)
	}
}

func TestDownWithoutAControlPlane(t *testing.T) {
	for name, folder := range map[string]string{
		"if the folder is missing, expect nothing": filepath.Join(t.TempDir(), "missing"),
		"if the folder is empty, expect nothing":   t.TempDir(),
	} {
		t.Run(name, func(t *testing.T) {
			if found, err := Down(folder); found || err != nil {
				t.Errorf("Down = %v, %v", found, err)
			}
		})
	}
}

// The kernel may have reused a recorded process ID for another process.
func TestDownSparesUnrelatedProcesses(t *testing.T) {
	folder, lock, err := lockFolder(filepath.Join(t.TempDir(), "data"))
	if err != nil {
		t.Fatal(err)
	}
	if err := lock.Close(); err != nil {
		t.Fatal(err)
	}
	unrelated := exec.Command("sleep", "600")
	if err := unrelated.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = unrelated.Process.Kill()
		_ = unrelated.Wait()
	}()
	recorded := Identity{PID: unrelated.Process.Pid, Started: "1"}
	state := State{Harness: recorded, Children: []Child{{Name: "etcd", Identity: recorded}}}
	if err := state.write(folder); err != nil {
		t.Fatal(err)
	}
	if found, err := Down(folder); !found || err != nil {
		t.Errorf("Down = %v, %v", found, err)
	}
	if _, err := os.Stat(folder); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the folder is still there: %v", err)
	}
	if identity, err := identify(unrelated.Process.Pid); err != nil || !identity.Alive() {
		t.Errorf("the unrelated process was ended: %v", err)
	}
}

func TestDownCleansUpAfterAKilledHarness(t *testing.T) {
	folder, lock, err := lockFolder(filepath.Join(t.TempDir(), "data"))
	if err != nil {
		t.Fatal(err)
	}
	if err := lock.Close(); err != nil {
		t.Fatal(err)
	}
	child := exec.Command("sleep", "600")
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	identity, err := identify(child.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	kubeconfig := filepath.Join(t.TempDir(), "kubeconfig")
	for _, path := range []string{kubeconfig, filepath.Join(folder, adminKubeconfigFile)} {
		if err := os.WriteFile(path, []byte(kubeconfigHeader), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	state := State{Children: []Child{{Name: "etcd", Identity: identity}}, Kubeconfig: kubeconfig}
	if err := state.write(folder); err != nil {
		t.Fatal(err)
	}
	if found, err := Down(folder); !found || err != nil {
		t.Errorf("Down = %v, %v", found, err)
	}
	if err := child.Wait(); err == nil || err.Error() != "signal: killed" {
		t.Errorf("the child ended with %v", err)
	}
	for _, path := range []string{folder, kubeconfig} {
		if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s is still there: %v", path, err)
		}
	}
}
