//go:build linux

package singlenode

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// setUpNamespaces gives this process's new namespaces their mounts, addresses and name.
func (o Options) setUpNamespaces() error {
	for _, step := range []struct {
		name string
		run  func() error
	}{
		{"mounts", o.mount},
		{"kernel settings", o.bindKernelSettings},
		{"name", func() error { return syscall.Sethostname([]byte(nodeName)) }},
		{"network", o.addBridge},
	} {
		if err := step.run(); err != nil {
			return fmt.Errorf("the node's %s: %w", step.name, err)
		}
	}
	return nil
}

// tmpfsFolders are the folders in which programs write at fixed paths; inside they are
// empty and in memory.
var tmpfsFolders = []string{"/run", "/var/lib", "/var/log"}

// mount makes the machine's files a view of our own: a new /proc, empty folders
// where Kubernetes and containerd have fixed paths, and the unpacked packages over
// /usr.
func (o Options) mount() error {
	if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		return err
	}
	if err := syscall.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		return fmt.Errorf("/proc: %w", err)
	}
	for _, folder := range tmpfsFolders {
		for _, path := range []string{o.Folder, o.Programs["kubelet"]} {
			if strings.HasPrefix(path, folder+"/") {
				return fmt.Errorf("%s lies below %s, which the node covers: name a --data folder and an ISTHMUS_CACHE elsewhere", path, folder)
			}
		}
		if err := syscall.Mount("tmpfs", folder, "tmpfs", 0, "mode=755"); err != nil {
			return fmt.Errorf("%s: %w", folder, err)
		}
	}
	if o.Packages != "" {
		layers := filepath.Join(o.Packages, "usr") + ":/usr"
		if err := syscall.Mount("overlay", "/usr", "overlay", syscall.MS_RDONLY, "lowerdir="+layers); err != nil {
			return fmt.Errorf("packages over /usr: %w", err)
		}
	}
	// The kubelet hands mounts on to containers.
	return syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_SHARED, "")
}

// kernelSettings are what the kubelet wants of the kernel (pkg/kubelet/cm,
// setupKernelTunables), and would set for the whole machine.
var kernelSettings = map[string]int{
	"vm/overcommit_memory":      1,
	"vm/panic_on_oom":           0,
	"kernel/panic":              10,
	"kernel/panic_on_oops":      1,
	"kernel/keys/root_maxkeys":  1000000,
	"kernel/keys/root_maxbytes": 25000000,
}

// bindKernelSettings shows the kubelet the settings that it wants, so that it leaves
// the machine's alone.
func (o Options) bindKernelSettings() error {
	for setting, value := range kernelSettings {
		shown := o.path("settings", strings.ReplaceAll(setting, "/", "."))
		if err := errors.Join(os.MkdirAll(filepath.Dir(shown), 0o700), os.WriteFile(shown, []byte(strconv.Itoa(value)+"\n"), 0o600)); err != nil {
			return err
		}
		if err := syscall.Mount(shown, "/proc/sys/"+setting, "", syscall.MS_BIND, ""); err != nil {
			return fmt.Errorf("/proc/sys/%s: %w", setting, err)
		}
	}
	return nil
}

// addBridge makes the bridge of the pods, with the node's address on it.
func (o Options) addBridge() error {
	for _, arguments := range [][]string{
		{"link", "set", "lo", "up"},
		{"link", "add", bridge, "type", "bridge"},
		{"address", "add", nodeAddress + "/16", "dev", bridge},
		{"link", "set", bridge, "up"},
		// A packet to a Service needs a way out before it gets its real destination.
		{"route", "add", "default", "dev", bridge},
	} {
		if out, err := exec.Command("ip", arguments...).CombinedOutput(); err != nil {
			return fmt.Errorf("ip %s: %w: %s", strings.Join(arguments, " "), err, out)
		}
	}
	for _, setting := range []string{"net/ipv4/ip_forward", "net/bridge/bridge-nf-call-iptables"} {
		err := os.WriteFile("/proc/sys/"+setting, []byte("1"), 0)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return nil
}

// bridge is the device that the pods are plugged into.
const bridge = "pods"
