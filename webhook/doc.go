// Package webhook serves admission reviews: a review of a pod in, a JSON patch
// out; a review of a workload's template or of a namespace in, a word to its author
// out. What to do with a pod is decided by webhook/inject.
package webhook
