package apiserver

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestMain lets the test binary run as the reaper.
func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == ReapCommand {
		if err := Reap(os.Args[2], os.Stdin); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// writeScripts writes shell scripts that replace etcd and the API server.
func writeScripts(t *testing.T, etcd, apiServer string) map[string]string {
	t.Helper()
	folder := t.TempDir()
	programs := map[string]string{}
	for name, script := range map[string]string{"etcd": etcd, "kube-apiserver": apiServer} {
		programs[name] = filepath.Join(folder, name)
		if err := os.WriteFile(programs[name], []byte("#!/bin/sh\n"+script+"\n"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	return programs
}

const etcdListens = `touch etcd:2379; exec sleep 600`

func TestStartFailsWithTheComponentsLog(t *testing.T) {
	for name, test := range map[string]struct{ etcd, apiServer, want string }{
		"if etcd ends, expect its log": {
			etcd: `echo no space; exit 2`,
			want: "etcd ended with exit status 2; the end of its log:\nno space",
		},
		"if the API server ends, expect its log": {
			etcd: etcdListens, apiServer: `echo bad flag; exit 1`,
			want: "kube-apiserver ended with exit status 1; the end of its log:\nbad flag",
		},
		"if the API server is killed, expect the signal": {
			etcd: etcdListens, apiServer: `kill -9 $$`,
			want: "kube-apiserver ended with signal: killed; the end of its log:\n",
		},
		"if it never answers, expect the timeout": {
			etcd: etcdListens, apiServer: `echo waiting; exec sleep 600`,
			want: "kube-apiserver is not ready (gave up after 1s): ",
		},
	} {
		t.Run(name, func(t *testing.T) {
			folder := filepath.Join(t.TempDir(), "data")
			_, err := Start(t.Context(), Options{Folder: folder, Programs: writeScripts(t, test.etcd, test.apiServer), Timeout: time.Second})
			if err == nil || !strings.HasPrefix(err.Error(), test.want) {
				t.Errorf("error %v, want %s", err, test.want)
			}
			if _, err := os.Stat(folder); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("the data folder is still there: %v", err)
			}
		})
	}
}

// Another process may take a port between its choice and its use.
func TestStartRetriesWhenThePortIsTaken(t *testing.T) {
	ports := filepath.Join(t.TempDir(), "ports")
	programs := writeScripts(t, etcdListens, `
for argument in "$@"; do case $argument in --secure-port=*) echo "$argument" >> `+ports+`;; esac; done
[ $(wc -l < `+ports+`) -lt 3 ] || { echo another problem; exit 1; }
echo 'failed to listen on 127.0.0.1: bind: address already in use'; exit 1`)
	_, err := Start(t.Context(), Options{Folder: filepath.Join(t.TempDir(), "data"), Programs: programs, Timeout: 30 * time.Second})
	if err == nil || !strings.Contains(err.Error(), "another problem") {
		t.Errorf("error %v", err)
	}
	content, err := os.ReadFile(ports)
	if err != nil {
		t.Fatal(err)
	}
	tried := strings.Fields(string(content))
	if len(tried) != 3 || tried[0] == tried[1] {
		t.Errorf("tried ports %q", tried)
	}
}

func TestStartStopsRetryingPorts(t *testing.T) {
	tries := filepath.Join(t.TempDir(), "tries")
	programs := writeScripts(t, etcdListens, `echo x >> `+tries+`; echo 'bind: address already in use'; exit 1`)
	_, err := Start(t.Context(), Options{Folder: filepath.Join(t.TempDir(), "data"), Programs: programs, Timeout: 30 * time.Second})
	if err == nil || !strings.Contains(err.Error(), "address already in use") {
		t.Errorf("error %v", err)
	}
	if content, err := os.ReadFile(tries); err != nil || len(strings.Fields(string(content))) != portAttempts {
		t.Errorf("tries %q, %v, want %d", content, err, portAttempts)
	}
}
