package policy

// Warning is a message for the user that is not an error.
type Warning struct {
	// Code is short and stable, in kebab case. The status annotation records it.
	Code string
	// Text is one sentence for the user.
	Text string
}
