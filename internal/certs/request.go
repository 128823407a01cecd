package certs

import (
	"errors"
	"time"
)

// Request says for whom a certificate is wanted, and of whom.
type Request struct {
	// Namespace and ServiceAccount are the edge's.
	Namespace, ServiceAccount string
	// Secret is the Secret that the certificate is for.
	Secret string
	// MirrorSecret is the Secret that the source mirror reads.
	MirrorSecret string
	// CAAddress is host:port of the certificate authority.
	CAAddress string
	// TokenAudience is the audience that the authority wants tokens to have.
	TokenAudience string
	// ClusterID names the cluster to the authority; empty leaves it out.
	ClusterID string
	// TTL is the lifetime asked for; zero leaves it to the authority.
	TTL time.Duration
	// Want is what the bundle has to be.
	Want Want
}

// ErrPending means that a source has begun what was asked of it and has no
// certificate yet: no failure, ask again in a moment.
var ErrPending = errors.New("the certificate is not issued yet")
