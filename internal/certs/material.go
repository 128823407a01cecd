package certs

import (
	"fmt"
	"io"
)

// Material is PEM as a source delivers it, not validated yet. It never prints its
// content. Reflection reads unexported fields, however: do not log a value that has
// Material in an unexported field.
type Material struct {
	// Key is a private key, as PKCS#8, PKCS#1 or SEC 1.
	Key []byte
	// Chain is the leaf, then the intermediates above it. A self-signed root
	// at its end is dropped: Istio's agent appends one.
	Chain []byte
	// Roots are the source's own trust anchors, trusted in addition to those of the
	// mesh. Those that cannot be read are left out. May be empty.
	Roots []byte
}

const redacted = "certs.Material{redacted}"

// String prints no key.
func (Material) String() string { return redacted }

// Format prints no key for any verb: %d would not call String.
func (Material) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) }

// MarshalText prints no key as JSON or YAML.
func (Material) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// MarshalLog prints no key.
func (Material) MarshalLog() any { return redacted }
