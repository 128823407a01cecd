// Package cgroup creates and removes the control groups of a node.
package cgroup
