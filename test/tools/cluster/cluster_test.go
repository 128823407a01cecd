package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/test/tools/cluster/internal/apiserver"
)

// asProgram names the environment variable that makes the test binary run as the
// program. The program starts itself for the reaper and for up --detach.
const asProgram = "ISTHMUS_TEST_AS_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		os.Exit(exitCode(os.Args[1:], streams{os.Stdin, os.Stdout, os.Stderr}))
	}
	os.Exit(m.Run())
}

// program returns a command that runs the program with its own temporary folder.
func program(t *testing.T, arguments ...string) *exec.Cmd {
	t.Helper()
	command := exec.Command(os.Args[0], arguments...)
	command.Env = append(os.Environ(), asProgram+"=1", "TMPDIR="+t.TempDir())
	return command
}

// up starts a control plane and returns it when it is ready, with the write end of
// its standard input.
func up(t *testing.T, arguments ...string) (*exec.Cmd, *os.File, apiserver.Endpoint) {
	t.Helper()
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	command := program(t, append([]string{"up"}, arguments...)...)
	command.Stdin = read
	var stderr bytes.Buffer
	command.Stderr = &stderr
	stdout, err := command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	_ = read.Close()
	t.Cleanup(func() {
		_ = write.Close()
		_ = command.Process.Kill()
		_ = command.Wait()
	})
	line, err := bufio.NewReader(stdout).ReadBytes('\n')
	if err != nil {
		t.Fatalf("no line on standard output (%v): %v: %s", err, command.Wait(), stderr.String())
	}
	return command, write, parseEndpoint(t, line)
}

func parseEndpoint(t *testing.T, line []byte) apiserver.Endpoint {
	t.Helper()
	var endpoint apiserver.Endpoint
	decoder := json.NewDecoder(bytes.NewReader(line))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&endpoint); err != nil {
		t.Fatalf("%s: %v", line, err)
	}
	return endpoint
}

// kubectl runs kubectl as the admin and returns what it prints.
func kubectl(t *testing.T, endpoint apiserver.Endpoint, arguments ...string) string {
	t.Helper()
	out, err := exec.Command(endpoint.Kubectl, append([]string{"--kubeconfig=" + endpoint.Kubeconfig}, arguments...)...).CombinedOutput()
	if err != nil {
		t.Fatalf("kubectl %s: %v: %s", strings.Join(arguments, " "), err, out)
	}
	return string(out)
}

// children returns the processes of a control plane.
func children(t *testing.T, endpoint apiserver.Endpoint, want ...string) []apiserver.Child {
	t.Helper()
	state, err := apiserver.ReadState(endpoint.DataDir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, child := range state.Children {
		names = append(names, child.Name)
		if !child.Alive() {
			t.Errorf("%s does not run", child.Name)
		}
	}
	if strings.Join(names, " ") != strings.Join(want, " ") {
		t.Errorf("children %q, want %q", names, want)
	}
	return state.Children
}

// assertRemoved waits until the processes have ended and the data folder is gone.
func assertRemoved(t *testing.T, endpoint apiserver.Endpoint, children []apiserver.Child) {
	t.Helper()
	var left []string
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		left = nil
		for _, child := range children {
			if child.Alive() {
				left = append(left, child.Name)
			}
		}
		if _, err := os.Stat(endpoint.DataDir); !errors.Is(err, fs.ErrNotExist) {
			left = append(left, endpoint.DataDir)
		}
		if len(left) == 0 {
			return
		}
	}
	t.Errorf("left behind: %q", left)
}

func TestUpServesUntilItsInputCloses(t *testing.T) {
	extraKubeconfig := filepath.Join(t.TempDir(), "kubeconfig")
	command, input, endpoint := up(t, "--kubeconfig="+extraKubeconfig)
	processes := children(t, endpoint, "etcd", "kube-apiserver")
	if answer := kubectl(t, endpoint, "get", "--raw", "/readyz"); answer != "ok" {
		t.Errorf("/readyz: %s", answer)
	}
	if answer := kubectl(t, endpoint, "auth", "whoami", "-o", "jsonpath={.status.userInfo.groups}"); answer != `["system:masters","system:authenticated"]` {
		t.Errorf("groups of the admin: %s", answer)
	}
	for _, path := range []string{extraKubeconfig, endpoint.Kubeconfig} {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("mode of %s: %v, %v", path, info, err)
		}
	}
	if _, err := os.Stat(filepath.Join(endpoint.Logs, "kube-apiserver.log")); err != nil {
		t.Error(err)
	}

	_ = input.Close()
	if err := command.Wait(); err != nil {
		t.Errorf("up ended with %v", err)
	}
	// No waiting here: cleanup is complete when up has ended.
	for _, path := range []string{endpoint.DataDir, extraKubeconfig} {
		if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s is still there: %v", path, err)
		}
	}
	for _, child := range processes {
		if child.Alive() {
			t.Errorf("%s still runs", child.Name)
		}
	}
}

// The API server enforces RBAC and the default admission plugins, and issues tokens
// for Istio's agents.
func TestUpEnforcesAuthorizationAndAdmission(t *testing.T) {
	command, _, endpoint := up(t)
	processes := children(t, endpoint, "etcd", "kube-apiserver")
	kubectl(t, endpoint, "create", "namespace", "strict")
	kubectl(t, endpoint, "label", "namespace", "strict", "pod-security.kubernetes.io/enforce=restricted")

	assertRefused := func(want string, arguments ...string) {
		t.Helper()
		arguments = append([]string{"--kubeconfig=" + endpoint.Kubeconfig, "--namespace=strict"}, arguments...)
		out, err := exec.Command(endpoint.Kubectl, arguments...).CombinedOutput()
		if err == nil || !strings.Contains(string(out), want) {
			t.Errorf("%q: %v, %s, want %s", arguments, err, out, want)
		}
	}
	assertRefused("serviceaccount \"default\" not found", "run", "x", "--image=x")
	kubectl(t, endpoint, "--namespace=strict", "create", "serviceaccount", "default")
	assertRefused("violates PodSecurity \"restricted:latest\"", "run", "x", "--image=x")
	assertRefused("User \"system:serviceaccount:strict:default\" cannot list resource", "get", "pods", "--as=system:serviceaccount:strict:default")
	if token := kubectl(t, endpoint, "--namespace=strict", "create", "token", "default", "--audience=istio-ca"); strings.Count(token, ".") != 2 {
		t.Errorf("token: %s", token)
	}

	if err := command.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := command.Wait(); err != nil {
		t.Errorf("up ended with %v after SIGTERM", err)
	}
	assertRemoved(t, endpoint, processes)
}

func TestKilledUpLeavesNothingBehind(t *testing.T) {
	command, _, endpoint := up(t)
	processes := children(t, endpoint, "etcd", "kube-apiserver")
	if err := command.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = command.Wait()
	assertRemoved(t, endpoint, processes)
}

func TestUpFailsWhenAComponentDies(t *testing.T) {
	data := filepath.Join(t.TempDir(), "data")
	command, _, endpoint := up(t, "--data="+data)
	processes := children(t, endpoint, "etcd", "kube-apiserver")
	stderr, ok := command.Stderr.(*bytes.Buffer)
	if !ok {
		t.Fatal("standard error is not a buffer")
	}
	if err := syscall.Kill(processes[1].PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := command.Wait(); err == nil || err.Error() != "exit status 1" {
		t.Errorf("up ended with %v", err)
	}
	if want := "cluster: kube-apiserver ended with signal: killed; the end of its log:\n"; !strings.HasPrefix(stderr.String(), want) {
		t.Errorf("standard error %s, want %s", stderr.String(), want)
	}
	assertRemoved(t, endpoint, processes)
}

// mustRun runs the program until it ends and returns its standard output and its
// standard error.
func mustRun(t *testing.T, arguments ...string) (out, errorOutput string) {
	t.Helper()
	command := program(t, arguments...)
	var stdout, stderr bytes.Buffer
	command.Stdout, command.Stderr = &stdout, &stderr
	if err := command.Run(); err != nil {
		t.Fatalf("%q: %v: %s", arguments, err, stderr.String())
	}
	return stdout.String(), stderr.String()
}

func TestDetachedControlPlaneRunsUntilDown(t *testing.T) {
	data := filepath.Join(t.TempDir(), "data")
	t.Cleanup(func() { mustRun(t, "down", "--data", data) })

	out, _ := mustRun(t, "up", "--detach", "--controller-manager", "--data", data)
	endpoint := parseEndpoint(t, []byte(out))
	processes := children(t, endpoint, "etcd", "kube-apiserver", "kube-controller-manager")
	second, stderr := mustRun(t, "up", "--detach", "--data", data)
	if second != out || stderr != "a control plane already runs in "+data+"\n" {
		t.Errorf("up on a running one: %s, %s", second, stderr)
	}

	kubectl(t, endpoint, "create", "deployment", "x", "--image=x", "--replicas=2")
	kubectl(t, endpoint, "wait", "--for=create", "pods", "-l", "app=x", "--timeout=60s")

	if _, stderr = mustRun(t, "down", "--data", data); stderr != "ended the control plane in "+data+"\n" {
		t.Errorf("down: standard error %s", stderr)
	}
	assertRemoved(t, endpoint, processes)
	if _, stderr = mustRun(t, "down", "--data", data); stderr != "no control plane runs in "+data+"\n" {
		t.Errorf("down without a control plane: standard error %s", stderr)
	}
}

func TestInvalidCommandLinesAreRejected(t *testing.T) {
	for name, test := range map[string]struct {
		arguments []string
		want      string
	}{
		"if there is no command, expect an error":    {nil, "cluster: no command given"},
		"if the command is unknown, expect its name": {[]string{"start"}, `cluster: unknown command "start"`},
		"if up gets an argument, expect it named":    {[]string{"up", "now"}, `cluster: up takes no argument, got "now"`},
		"if bin gets no name, expect a count":        {[]string{"bin"}, "cluster: bin takes one name, got 0"},
		"if detach has no folder, expect the flag":   {[]string{"up", "--detach"}, "cluster: --detach needs --data, the folder that down will be told"},
		"if down has no folder, expect the flag":     {[]string{"down"}, "cluster: down needs --data, the folder that up --detach was given"},
		"if a flag is unknown, expect it named":      {[]string{"down", "--all"}, "cluster: flag provided but not defined: -all"},
	} {
		t.Run(name, func(t *testing.T) {
			out, err := program(t, test.arguments...).CombinedOutput()
			if err == nil || err.Error() != "exit status 1" || !strings.HasSuffix(strings.TrimSpace(string(out)), test.want) {
				t.Errorf("%v: %s, want %s", err, out, test.want)
			}
		})
	}
}
