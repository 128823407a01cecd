// Package cgroup makes and removes the control groups of a node.
package cgroup
