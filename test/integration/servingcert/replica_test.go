package servingcert

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"io"
	"log"
	"net"
	"net/http"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/go-logr/logr/testr"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	admissionv1 "k8s.io/api/admission/v1"

	"github.com/isthmus-mesh/isthmus/webhook/serving"
)

// lifetimes are the durations that a test shortens, to see several rotations.
type lifetimes struct{ ca, leaf, delay time.Duration }

// certificateSource is serving.Source or serving.FileSource.
type certificateSource interface {
	Start(ctx context.Context) error
	GetCertificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error)
	Ready() error
}

// replica is a server that allows every review, with its own serving certificate.
type replica struct {
	source      certificateSource
	server      *http.Server
	address     string
	cancel      context.CancelFunc
	ended       sync.WaitGroup
	mu          sync.Mutex // guards stopping, and the first Add of connections against their Wait
	stopping    bool
	connections sync.WaitGroup // those that the service forwards to it
	reviews     atomic.Int64
	leaves      sync.Map // serial number -> true
}

// startRotator starts a Rotator, and returns the function that stops it.
func (i *installation) startRotator(t *testing.T, l lifetimes) func() {
	t.Helper()
	rotator, err := serving.NewRotator(serving.Options{
		Client: i.controller, Namespace: i.namespace, SecretName: secretName, ConfigurationName: i.configuration,
		CATTL: l.ca, PropagationDelay: l.delay, Log: testr.New(t),
	})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	var ended sync.WaitGroup
	ended.Go(func() { assert.NoError(t, rotator.Start(ctx)) })
	stop := func() {
		cancel()
		ended.Wait()
	}
	t.Cleanup(stop)
	return stop
}

// startReplica starts a replica that signs its own certificate.
func (i *installation) startReplica(t *testing.T, l lifetimes) *replica {
	t.Helper()
	source, err := serving.NewSource(serving.Options{
		Client: i.webhook, Namespace: i.namespace, SecretName: secretName, ConfigurationName: i.configuration,
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, LeafTTL: l.leaf, Log: testr.New(t),
	})
	require.NoError(t, err)
	return startServer(t, source)
}

// startFileReplica starts a replica whose certificate is in the files tls.crt and tls.key
// of a folder.
func (i *installation) startFileReplica(t *testing.T, folder string, logger logr.Logger) *replica {
	t.Helper()
	source, err := serving.NewFileSource(serving.FileOptions{
		CertFile: filepath.Join(folder, "tls.crt"), KeyFile: filepath.Join(folder, "tls.key"),
		Client: i.webhook, ConfigurationName: i.configuration, Log: logger,
	})
	require.NoError(t, err)
	return startServer(t, source)
}

// startServer starts the server of a replica, which stops when the test ends.
func startServer(t *testing.T, source certificateSource) *replica {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)

	r := &replica{source: source, address: listener.Addr().String()}
	r.server = &http.Server{
		Handler: http.HandlerFunc(r.allow),
		// HTTP/1 without keep-alive: every review is a handshake.
		TLSNextProto: map[string]func(*http.Server, *tls.Conn, http.Handler){},
		TLSConfig:    &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: r.certificate, NextProtos: []string{"http/1.1"}},
		ErrorLog:     log.New(io.Discard, "", 0), // a refused handshake fails a create, which the test counts
	}
	r.server.SetKeepAlivesEnabled(false)

	ctx, cancel := context.WithCancel(context.Background())
	r.cancel = cancel
	r.ended.Go(func() { assert.NoError(t, source.Start(ctx)) })
	r.ended.Go(func() { _ = r.server.ServeTLS(listener, "", "") })
	t.Cleanup(r.stop)
	return r
}

// stop takes no more connections, and stops the replica after those that it has have ended.
func (r *replica) stop() {
	r.mu.Lock()
	r.stopping = true
	r.mu.Unlock()
	r.connections.Wait()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	_ = r.server.Shutdown(ctx)
	r.cancel()
	r.ended.Wait()
}

// connect says whether the replica takes one more connection. The caller calls
// connections.Done when it has ended.
func (r *replica) connect() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.stopping || r.source.Ready() != nil {
		return false
	}
	r.connections.Add(1)
	return true
}

func (r *replica) certificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	pair, err := r.source.GetCertificate(hello)
	if err == nil {
		r.leaves.Store(pair.Leaf.SerialNumber.String(), true)
	}
	return pair, err
}

func (r *replica) allow(w http.ResponseWriter, request *http.Request) {
	var review admissionv1.AdmissionReview
	if err := json.NewDecoder(request.Body).Decode(&review); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	r.reviews.Add(1)
	review.Response = &admissionv1.AdmissionResponse{UID: review.Request.UID, Allowed: true}
	review.Request = nil
	_ = json.NewEncoder(w).Encode(review)
}

// service forwards connections as a Service does: each to the next replica that is
// ready.
type service struct {
	listener net.Listener
	mu       sync.Mutex
	replicas []*replica
	next     int
}

func newService(t *testing.T) *service {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	s := &service{listener: listener}
	go s.accept()
	t.Cleanup(func() { _ = listener.Close() })
	return s
}

func (s *service) accept() {
	for {
		connection, err := s.listener.Accept()
		if err != nil {
			return
		}
		go s.forward(connection)
	}
}

func (s *service) forward(client net.Conn) {
	defer func() { _ = client.Close() }()
	target := s.nextReady()
	if target == nil {
		return
	}
	defer target.connections.Done()
	server, err := net.Dial("tcp", target.address)
	if err != nil {
		return
	}
	defer func() { _ = server.Close() }()
	go func() {
		_, _ = io.Copy(server, client)
		_ = server.(*net.TCPConn).CloseWrite()
	}()
	_, _ = io.Copy(client, server)
}

// nextReady returns the next replica that is ready, or nil.
func (s *service) nextReady() *replica {
	s.mu.Lock()
	defer s.mu.Unlock()
	for range s.replicas {
		s.next++
		if r := s.replicas[s.next%len(s.replicas)]; r.connect() {
			return r
		}
	}
	return nil
}

// setEndpoints replaces the replicas that get connections.
func (s *service) setEndpoints(replicas ...*replica) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.replicas = replicas
}
