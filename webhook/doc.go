// Package webhook serves admission reviews. A review of a pod is answered with a
// JSON patch, a review of a workload's pod template or of a namespace with warnings
// or a denial. The decisions themselves are made by webhook/inject.
package webhook
