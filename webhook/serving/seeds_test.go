//go:build !soak

package serving

// Each simulated lifetime takes seconds: make soak runs more of them.
const (
	// seeds is how many simulations do every kind of damage at random times.
	seeds = 1
	// lifetimes is for how many lifetimes of a CA one kind of damage is repeated.
	lifetimes = 1
)
