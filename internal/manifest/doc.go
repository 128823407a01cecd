// Package manifest edits the workloads in a stream of Kubernetes manifests and
// preserves everything else. A document without an edit keeps every byte. A document
// with an edit keeps its comments, key order and layout around the edit.
//
// The package finds the pod in a workload. An Editor decides how to edit it.
package manifest
