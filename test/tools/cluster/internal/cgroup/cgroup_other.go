//go:build !linux

package cgroup

// Remove does nothing: only Linux has control groups.
func Remove(string) error { return nil }
