//go:build e2e

package main

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/isthmus-mesh/isthmus/test/tools/cluster/internal/apiserver"
)

// machine is the state of the machine that a node could change: its mounts, its
// network links and its kernel settings.
type machine struct {
	mounts, links, settings string
}

// readMachine reads the machine's state. The settings are those that a kubelet and a
// kube-proxy change.
func readMachine(t *testing.T) machine {
	t.Helper()
	read := func(paths ...string) string {
		var text strings.Builder
		for _, path := range paths {
			content, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			text.Write(content)
		}
		return text.String()
	}
	var links strings.Builder
	entries, err := os.ReadDir("/sys/class/net")
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		links.WriteString(entry.Name() + "\n")
	}
	return machine{
		mounts: read("/proc/self/mounts"),
		links:  links.String(),
		settings: read("/proc/sys/net/ipv4/ip_forward", "/proc/sys/vm/overcommit_memory", "/proc/sys/vm/panic_on_oom",
			"/proc/sys/kernel/panic", "/proc/sys/kernel/panic_on_oops", "/proc/sys/kernel/hostname"),
	}
}

// assertMachineUnchanged compares the machine's state with the state before.
func assertMachineUnchanged(t *testing.T, before machine) {
	t.Helper()
	if after := readMachine(t); after != before {
		t.Errorf("the machine is not what it was: %+v\nbefore: %+v", after, before)
	}
}

// controlGroups returns the control groups of a running node.
func controlGroups(t *testing.T, endpoint apiserver.Endpoint) []string {
	t.Helper()
	state, err := apiserver.ReadState(endpoint.DataDir)
	if err != nil || state.CGroup == "" {
		t.Fatalf("the node's control group: %+v, %v", state, err)
	}
	// cgroup v2 has one hierarchy, cgroup v1 has one for each controller.
	var found []string
	for _, pattern := range []string{"/sys/fs/cgroup/", "/sys/fs/cgroup/*/"} {
		paths, err := filepath.Glob(pattern + state.CGroup)
		if err != nil {
			t.Fatal(err)
		}
		found = append(found, paths...)
	}
	if len(found) == 0 {
		t.Errorf("no control group %s", state.CGroup)
	}
	return found
}

// assertControlGroupsRemoved fails if one of the control groups still exists.
func assertControlGroupsRemoved(t *testing.T, cgroups []string) {
	t.Helper()
	for _, cgroup := range cgroups {
		if _, err := os.Stat(cgroup); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s is still there: %v", cgroup, err)
		}
	}
}

// runPod runs a pod from the node's images until it is ready. It also waits for
// CoreDNS, which is ready only when it has reached the API server through its
// Service, so DNS and Services work too.
func runPod(t *testing.T, endpoint apiserver.Endpoint) {
	t.Helper()
	kubectl(t, endpoint, "wait", "--for=create", "serviceaccount/default", "--timeout=60s")
	kubectl(t, endpoint, "run", "pause", "--image=registry.k8s.io/pause:3.10", "--image-pull-policy=IfNotPresent")
	kubectl(t, endpoint, "wait", "--for=condition=Ready", "pod/pause", "--timeout=90s")
	kubectl(t, endpoint, "--namespace=kube-system", "wait", "--for=condition=Available", "deployment/coredns", "--timeout=90s")
}

func TestNodeRunsPodsUntilItsInputCloses(t *testing.T) {
	before := readMachine(t)
	command, input, endpoint := up(t, "--node")
	runPod(t, endpoint)
	if logs := kubectl(t, endpoint, "--namespace=kube-system", "logs", "deployment/coredns"); !strings.Contains(logs, "CoreDNS-") {
		t.Errorf("logs of CoreDNS: %s", logs)
	}
	if during := readMachine(t); during.mounts != before.mounts || during.links != before.links || during.settings != before.settings {
		t.Errorf("the machine is not what it was while the node runs: %+v\nbefore: %+v", during, before)
	}
	processes, cgroups := children(t, endpoint, "node"), controlGroups(t, endpoint)

	for _, component := range []string{"containerd", "kubelet", "kube-apiserver", "etcd"} {
		if out, err := program(t, "component", "--data", endpoint.DataDir, "restart", component).CombinedOutput(); err != nil {
			t.Fatalf("restart %s: %v: %s", component, err, out)
		}
	}
	for want, arguments := range map[string][]string{
		`no component "kublet": choose from ["containerd" "etcd"`:        {"restart", "kublet"},
		`unknown order "stop": choose from kill, restart, pause, resume`: {"stop", "kubelet"},
	} {
		out, err := program(t, append([]string{"component", "--data", endpoint.DataDir}, arguments...)...).CombinedOutput()
		if err == nil || !strings.Contains(string(out), want) {
			t.Errorf("%q: %v, %s, want %s", arguments, err, out, want)
		}
	}
	kubectl(t, endpoint, "delete", "pod", "pause", "--timeout=90s")
	runPod(t, endpoint)

	_ = input.Close()
	if err := command.Wait(); err != nil {
		t.Errorf("up ended with %v", err)
	}
	assertRemoved(t, endpoint, processes)
	assertControlGroupsRemoved(t, cgroups)
	assertMachineUnchanged(t, before)
}

func TestKilledNodeLeavesNothingBehind(t *testing.T) {
	before := readMachine(t)
	command, _, endpoint := up(t, "--node")
	runPod(t, endpoint)
	processes, cgroups := children(t, endpoint, "node"), controlGroups(t, endpoint)
	if err := command.Process.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	_ = command.Wait()
	assertRemoved(t, endpoint, processes)
	assertControlGroupsRemoved(t, cgroups)
	assertMachineUnchanged(t, before)
}

func TestDetachedNodeRunsUntilDown(t *testing.T) {
	before := readMachine(t)
	data := filepath.Join(t.TempDir(), "data")
	t.Cleanup(func() { mustRun(t, "down", "--data", data) })
	out, stderr := mustRun(t, "up", "--node", "--detach", "--data", data)
	endpoint := parseEndpoint(t, []byte(out))
	for _, step := range []string{"control plane", "kubelet", "DNS"} {
		if !strings.Contains(stderr, step) {
			t.Errorf("no progress of the %s: %s", step, stderr)
		}
	}
	runPod(t, endpoint)
	processes, cgroups := children(t, endpoint, "node"), controlGroups(t, endpoint)
	mustRun(t, "down", "--data", data)
	assertRemoved(t, endpoint, processes)
	assertControlGroupsRemoved(t, cgroups)
	assertMachineUnchanged(t, before)
}
