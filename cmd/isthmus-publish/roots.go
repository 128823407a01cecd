package main

import (
	"crypto/x509"
	"fmt"
	"os"

	"github.com/isthmus-mesh/isthmus/internal/certs"
)

// rootsFile is a file with the mesh's trust anchors.
type rootsFile struct {
	path  string
	roots []*x509.Certificate // the last valid content
}

// read returns the anchors. With an error it returns those that can be read and the
// last valid ones, nil when there were none.
func (r *rootsFile) read() ([]*x509.Certificate, error) {
	data, err := os.ReadFile(r.path)
	if err != nil {
		return r.roots, err
	}
	roots, err := certs.ParseRoots(data)
	if err != nil {
		// A last valid anchor may be the one that cannot be read now.
		r.roots = certs.MergeRoots(r.roots, roots)
		return r.roots, fmt.Errorf("%s: %w", r.path, err)
	}
	r.roots = roots
	return roots, nil
}
