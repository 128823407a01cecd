//go:build !soak

package serving

// seeds is how many lives with accidents are simulated: each takes seconds, and
// the more of them are for make soak.
const seeds = 1
