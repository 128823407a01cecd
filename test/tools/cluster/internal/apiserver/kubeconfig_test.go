package apiserver

import (
	"encoding/base64"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestKubeconfigEmbedsItsCredentials(t *testing.T) {
	authority := newTestAuthority(t)
	if err := authority.issueClient("admin", "isthmus-admin"); err != nil {
		t.Fatal(err)
	}
	content, err := authority.kubeconfig("https://127.0.0.1:1234", "admin")
	if err != nil {
		t.Fatal(err)
	}
	for key, file := range map[string]string{
		"certificate-authority-data": "ca.crt", "client-certificate-data": "admin.crt", "client-key-data": "admin.key",
	} {
		data, err := os.ReadFile(authority.path(file))
		if err != nil {
			t.Fatal(err)
		}
		if want := " " + key + ": " + base64.StdEncoding.EncodeToString(data) + "\n"; !strings.Contains(string(content), want) {
			t.Errorf("%s is not %s:\n%s", key, file, content)
		}
	}
	if strings.Count(string(content), " admin\n") != 2 || !strings.Contains(string(content), " server: https://127.0.0.1:1234\n") {
		t.Errorf("kubeconfig:\n%s", content)
	}
}

func TestExtraKubeconfigIsReplacedAndRemoved(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sub", "kubeconfig")
	ours := []byte(kubeconfigHeader + "first")
	for _, content := range [][]byte{ours, []byte(kubeconfigHeader + "second")} {
		if err := writeKubeconfig(path, content); err != nil {
			t.Fatal(err)
		}
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v, want 0600", info.Mode(), err)
	}
	if err := removeKubeconfig(path, ours); err != nil {
		t.Error(err)
	}
	if content, err := os.ReadFile(path); err != nil || string(content) != kubeconfigHeader+"second" {
		t.Errorf("a newer file after the removal of the older one: %q, %v", content, err)
	}
	if err := removeKubeconfig(path, []byte(kubeconfigHeader+"second")); err != nil {
		t.Error(err)
	}
	if entries, err := os.ReadDir(filepath.Dir(path)); err != nil || len(entries) > 0 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
	if err := removeKubeconfig(path, ours); err != nil {
		t.Errorf("removing it twice: %v", err)
	}
}

func TestForeignKubeconfigIsNotOverwritten(t *testing.T) {
	path := filepath.Join(t.TempDir(), "config")
	if err := os.WriteFile(path, []byte("apiVersion: v1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	want := path + " exists and was not written by test/tools/cluster: name another file for --kubeconfig"
	if err := writeKubeconfig(path, []byte(kubeconfigHeader)); err == nil || err.Error() != want {
		t.Errorf("error %v, want %s", err, want)
	}
	if content, err := os.ReadFile(path); err != nil || string(content) != "apiVersion: v1\n" {
		t.Errorf("the file holds %q, %v", content, err)
	}
	folder := filepath.Join(t.TempDir(), "data")
	if _, err := Start(t.Context(), Options{Folder: folder, Kubeconfig: path}); err == nil || err.Error() != want {
		t.Errorf("Start: error %v, want %s", err, want)
	}
	if _, err := os.Stat(folder); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Start created %s although it failed: %v", folder, err)
	}
}
