// Package patches holds what Isthmus injects and into what, as data: the
// profiles that say how an edge is recognised and what it needs, and the
// sidecar that gives it an identity. The YAML is embedded, loaded strictly
// once, and rendered without I/O.
package patches
