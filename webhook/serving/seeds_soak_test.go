//go:build soak

package serving

// Simulated lives take seconds each, and the more of them are for make soak.
const (
	// seeds is how many lives with accidents of every kind there are.
	seeds = 3
	// lives is through how many lives of a CA one kind of damage is done.
	lives = 2
)
