package certs

import (
	"errors"
	"fmt"
	"time"
)

// Request asks a source for a certificate. Each source reads the fields it needs.
type Request struct {
	// Namespace and ServiceAccount are those of the edge.
	Namespace, ServiceAccount string
	// Secret is the name of the Secret that the certificate is published to.
	Secret string
	// MirrorSecret is the name of the Secret that the source mirror reads.
	MirrorSecret string
	// CAAddress is host:port of the certificate authority.
	CAAddress string
	// CAServerName is the DNS name that the authority's own certificate has to carry.
	// Default: the host of CAAddress.
	CAServerName string
	// Key is what the mesh wants of the private key.
	Key KeySettings
	// TokenAudience is the audience that the authority requires of tokens. Default
	// istio-ca.
	TokenAudience string
	// ClusterID is the cluster's name at the authority. Empty sends none.
	ClusterID string
	// TTL is the lifetime to request. Zero leaves it to the authority.
	TTL time.Duration
	// Want is what the certificate has to satisfy.
	Want Want
}

// ErrPending means that a source has requested the certificate and that it is not
// issued yet. It is not a failure; request the bundle again soon.
var ErrPending = errors.New("the certificate is not issued yet")

// ErrBusy is an ErrPending of a source that answers, but has other requests to answer
// first. However long that lasts, nothing is wrong with this request.
var ErrBusy = fmt.Errorf("%w: the authority is busy", ErrPending)

// ErrNotConfigured means that a source lacks a setting that it needs. A source that was
// configured before may have left objects in the cluster.
var ErrNotConfigured = errors.New("it is not configured")
