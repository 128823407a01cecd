package certs

import (
	"fmt"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// Identity is the SPIFFE ID that Istio gives a service account:
// spiffe://<trust domain>/ns/<namespace>/sa/<service account>. An error says which
// part is invalid.
func Identity(trustDomain, namespace, serviceAccount string) (spiffeid.ID, error) {
	td, err := spiffeid.TrustDomainFromString(trustDomain)
	if err != nil {
		return spiffeid.ID{}, fmt.Errorf("trust domain %q: %w", trustDomain, err)
	}
	if td.Name() != trustDomain { // it was a SPIFFE ID, whose path would get lost
		return spiffeid.ID{}, fmt.Errorf("trust domain %q: want a name such as %q", trustDomain, td.Name())
	}
	id, err := spiffeid.FromSegments(td, "ns", namespace, "sa", serviceAccount)
	if err != nil {
		return spiffeid.ID{}, fmt.Errorf("identity of service account %s/%s: %w", namespace, serviceAccount, err)
	}
	return id, nil
}
