package certs

// Material is PEM as a source delivers it: nothing of it is checked yet.
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

// GoString prints no key.
func (Material) GoString() string { return redacted }

// MarshalLog prints no key.
func (Material) MarshalLog() any { return redacted }
