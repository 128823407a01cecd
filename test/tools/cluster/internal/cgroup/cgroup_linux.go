package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

const cgroupRoot = "/sys/fs/cgroup"

// hierarchies returns the mounted control group hierarchies: one with cgroup v2, one
// for each controller with cgroup v1.
func hierarchies() ([]string, error) {
	if _, err := os.Stat(filepath.Join(cgroupRoot, "cgroup.controllers")); err == nil {
		return []string{cgroupRoot}, nil
	}
	entries, err := os.ReadDir(cgroupRoot)
	if err != nil {
		return nil, err
	}
	var found []string
	for _, entry := range entries {
		if entry.IsDir() { // symbolic links are other names of the same hierarchies
			found = append(found, filepath.Join(cgroupRoot, entry.Name()))
		}
	}
	return found, nil
}

// Create creates a control group in every hierarchy.
func Create(group string) error {
	roots, err := hierarchies()
	if err != nil {
		return err
	}
	for _, root := range roots {
		if err := os.MkdirAll(filepath.Join(root, group), 0o755); err != nil {
			return fmt.Errorf("control group %s: %w", group, err)
		}
		// The kubelet expects these to be inherited: with v1 a new cpuset is empty, with
		// v2 a group has only the controllers that its parent delegates.
		if filepath.Base(root) == "cpuset" {
			for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
				if err := copyFromRoot(root, group, file); err != nil {
					return err
				}
			}
		}
		if root == cgroupRoot {
			for _, path := range []string{root, filepath.Join(root, group)} {
				if err := delegateControllers(path); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func copyFromRoot(root, group, file string) error {
	value, err := os.ReadFile(filepath.Join(root, file))
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(root, group, file), value, 0)
}

// delegateControllers enables all controllers of a cgroup v2 group for its children.
func delegateControllers(path string) error {
	controllers, err := os.ReadFile(filepath.Join(path, "cgroup.controllers"))
	if err != nil {
		return err
	}
	for _, controller := range strings.Fields(string(controllers)) {
		if err := os.WriteFile(filepath.Join(path, "cgroup.subtree_control"), []byte("+"+controller), 0); err != nil {
			return fmt.Errorf("delegate controller %s below %s: %w", controller, path, err)
		}
	}
	return nil
}

// Remove removes a control group whose processes have ended, and its descendants.
func Remove(group string) error {
	roots, err := hierarchies()
	if err != nil {
		return err
	}
	var problems []error
	for _, root := range roots {
		problems = append(problems, removeTree(filepath.Join(root, group)))
	}
	return errors.Join(problems...)
}

func removeTree(top string) error {
	var groups []string
	err := filepath.WalkDir(top, func(path string, entry fs.DirEntry, err error) error {
		if err == nil && entry.IsDir() {
			groups = append(groups, path)
		}
		return err
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, group := range slices.Backward(groups) {
		// The kernel may take a moment to remove the last process from the group.
		err := syscall.Rmdir(group)
		for deadline := time.Now().Add(5 * time.Second); errors.Is(err, syscall.EBUSY) && time.Now().Before(deadline); {
			time.Sleep(20 * time.Millisecond)
			err = syscall.Rmdir(group)
		}
		if err != nil && !errors.Is(err, syscall.ENOENT) {
			return fmt.Errorf("remove control group %s: %w", group, err)
		}
	}
	return nil
}
