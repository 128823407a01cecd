package policy

import "slices"

// Modes lists the modes of the API.
func Modes() []Mode { return slices.Clone(modes) }
