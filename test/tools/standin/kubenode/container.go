package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime"

	"golang.org/x/sys/unix"
)

// containerSpec describes the process of a container.
type containerSpec struct {
	// Root is the folder that becomes the container's root.
	Root string
	// Binds are mounted below the root, in this order.
	Binds []bindMount
	// Arguments begin with the program's path in the container.
	Arguments []string
	Env       []string
	Folder    string
	User      int
	Group     int
	ReadOnly  bool
}

type bindMount struct {
	Source, Target string
	ReadOnly       bool
}

// becomeContainer turns this process into the container whose containerSpec is on
// standard input. File descriptor 3 is the pod's network namespace.
func becomeContainer() error {
	runtime.LockOSThread()
	var c containerSpec
	if err := json.NewDecoder(os.Stdin).Decode(&c); err != nil {
		return err
	}
	if err := unix.Setns(3, unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("enter the pod's network: %w", err)
	}
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return err
	}
	if err := c.mount(); err != nil {
		return err
	}
	if err := unix.Chroot(c.Root); err != nil {
		return err
	}
	if err := unix.Chdir(c.Folder); err != nil {
		return err
	}
	if c.User != 0 && mayChangeUser() {
		if err := unix.Setgroups([]int{c.Group}); err != nil {
			return err
		}
		if err := unix.Setresgid(c.Group, c.Group, c.Group); err != nil {
			return err
		}
		if err := unix.Setresuid(c.User, c.User, c.User); err != nil {
			return err
		}
	}
	null, err := os.Open("/dev/null")
	if err != nil {
		return err
	}
	if err := unix.Dup2(int(null.Fd()), 0); err != nil {
		return err
	}
	unix.CloseOnExec(3)
	return unix.Exec(c.Arguments[0], c.Arguments, c.Env)
}

// mount mounts the container's root. A read-only root is remounted at the end, after the
// mount points were created.
func (c *containerSpec) mount() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	if err := unix.Mount(c.Root, c.Root, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return err
	}
	binds := append([]bindMount{{Source: "/proc", Target: "/proc"}, {Source: "/dev", Target: "/dev"}}, c.Binds...)
	for _, b := range binds {
		target := filepath.Join(c.Root, b.Target)
		if err := mountPoint(b.Source, target); err != nil {
			return err
		}
		if err := unix.Mount(b.Source, target, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
			return fmt.Errorf("mount %s at %s: %w", b.Source, b.Target, err)
		}
		if b.ReadOnly {
			if err := remountReadOnly(target); err != nil {
				return fmt.Errorf("mount %s read-only: %w", b.Target, err)
			}
		}
	}
	if c.ReadOnly {
		return remountReadOnly(c.Root)
	}
	return nil
}

func remountReadOnly(path string) error {
	var at unix.Statfs_t
	if err := unix.Statfs(path, &at); err != nil {
		return err
	}
	flags := uintptr(at.Flags) & (unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC | unix.MS_NOATIME | unix.MS_RELATIME)
	return unix.Mount("", path, "", flags|unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY, "")
}

// mountPoint creates a mount point: a folder or a file, like the source of the mount.
func mountPoint(source, target string) error {
	info, err := os.Stat(source)
	if err != nil {
		return err
	}
	if info.IsDir() {
		return os.MkdirAll(target, 0o755)
	}
	if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
		return err
	}
	f, err := os.OpenFile(target, os.O_CREATE|os.O_RDONLY, 0o644)
	if err != nil {
		return err
	}
	return f.Close()
}

// mayChangeUser reports whether this user namespace maps other users. A user namespace
// of an unprivileged user does not.
func mayChangeUser() bool {
	data, err := os.ReadFile("/proc/self/uid_map")
	var inside, outside, count int
	if err != nil {
		return false
	}
	_, err = fmt.Sscan(string(data), &inside, &outside, &count)
	return err == nil && count > 65536
}
