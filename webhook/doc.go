// Package webhook serves admission reviews: a review of a pod in, a JSON patch
// out. What to do with the pod is decided by webhook/inject.
package webhook
