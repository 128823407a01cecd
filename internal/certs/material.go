package certs

import (
	"fmt"
	"io"
)

// Material is PEM as a source delivers it: nothing of it is checked yet. It
// prints nothing of its content, in whatever way it is printed; but reflection
// sees through a field that is not exported, so keep it in none that is logged.
type Material struct {
	// Key is a private key, as PKCS#8, PKCS#1 or SEC 1.
	Key []byte
	// Chain is the leaf, then the intermediates above it. A self-signed root
	// at its end is dropped: Istio's agent appends one.
	Chain []byte
	// Roots are the source's own trust anchors. They are trusted beside those
	// of the mesh, and may be empty.
	Roots []byte
}

const redacted = "certs.Material{redacted}"

// String prints no key.
func (Material) String() string { return redacted }

// Format prints no key, whatever the verb: %d would go past String.
func (Material) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) }

// MarshalText prints no key as JSON or YAML.
func (Material) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// MarshalLog prints no key.
func (Material) MarshalLog() any { return redacted }
