// Package patches holds as data what Isthmus injects: the profiles, which describe how
// an edge is recognised and what it needs, and the sidecar that gives the edge an
// identity. The YAML is embedded, loaded strictly once, and rendered without I/O.
package patches
