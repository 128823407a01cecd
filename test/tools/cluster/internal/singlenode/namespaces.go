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

// setUpNamespaces sets up the new namespaces of this process: mounts, kernel
// settings, host name and network.
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

// tmpfsFolders are the folders in which Kubernetes and containerd write at fixed
// paths. In the namespaces they start as empty file systems in memory.
var tmpfsFolders = []string{"/run", "/var/lib", "/var/log"}

// mount changes what this mount namespace shows of the machine's files: a new /proc,
// empty folders where Kubernetes and containerd use fixed paths, and the unpacked
// packages over /usr.
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
	// The kubelet propagates mounts to containers.
	return syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_SHARED, "")
}

// kernelSettings are the kernel settings that the kubelet requires (pkg/kubelet/cm,
// setupKernelTunables). It would change them for the whole machine.
var kernelSettings = map[string]int{
	"vm/overcommit_memory":      1,
	"vm/panic_on_oom":           0,
	"kernel/panic":              10,
	"kernel/panic_on_oops":      1,
	"kernel/keys/root_maxkeys":  1000000,
	"kernel/keys/root_maxbytes": 25000000,
}

// bindKernelSettings mounts files with the required values over the kernel settings,
// so that the kubelet does not change the machine's.
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

// addBridge creates the bridge of the pods, with the node's address.
func (o Options) addBridge() error {
	for _, arguments := range [][]string{
		{"link", "set", "lo", "up"},
		{"link", "add", bridge, "type", "bridge"},
		{"address", "add", nodeAddress + "/16", "dev", bridge},
		{"link", "set", bridge, "up"},
		// A packet to a Service needs a route before kube-proxy's rules replace its
		// destination.
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

// bridge is the name of the network bridge that connects the pods.
const bridge = "pods"
