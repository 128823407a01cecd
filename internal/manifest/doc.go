// Package manifest edits the workloads in a stream of Kubernetes manifests and
// leaves everything else exactly as it came in: documents that do not change
// keep every byte, documents that do keep their comments, key order and layout
// around the edit.
//
// It knows where a pod hides in a workload, not what is to be done with it:
// that is an Editor's word.
package manifest
