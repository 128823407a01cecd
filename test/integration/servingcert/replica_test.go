package servingcert

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"io"
	"log"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-logr/logr/testr"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	admissionv1 "k8s.io/api/admission/v1"

	"github.com/isthmus-mesh/isthmus/webhook/serving"
)

// lifetimes are what a test makes short to see the end of.
type lifetimes struct{ ca, leaf, delay time.Duration }

// replica is one server that allows everything, on a certificate of its own.
type replica struct {
	source  *serving.Source
	server  *http.Server
	address string
	cancel  context.CancelFunc
	ended   sync.WaitGroup
	carried sync.WaitGroup // connections that the service has begun to carry here
	reviews atomic.Int64
	leaves  sync.Map // serial number -> true
}

// keep runs a keeper, and returns what ends it.
func (i *installation) keep(t *testing.T, l lifetimes) func() {
	t.Helper()
	keeper, err := serving.NewKeeper(serving.Options{
		Client: i.controller, Namespace: i.namespace, SecretName: secretName, ConfigurationName: i.configuration,
		CATTL: l.ca, PropagationDelay: l.delay, Log: testr.New(t),
	})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	var ended sync.WaitGroup
	ended.Go(func() { assert.NoError(t, keeper.Start(ctx)) })
	stop := func() {
		cancel()
		ended.Wait()
	}
	t.Cleanup(stop)
	return stop
}

func (i *installation) start(t *testing.T, l lifetimes) *replica {
	t.Helper()
	source, err := serving.New(serving.Options{
		Client: i.webhook, Namespace: i.namespace, SecretName: secretName, ConfigurationName: i.configuration,
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, LeafTTL: l.leaf, Log: testr.New(t),
	})
	require.NoError(t, err)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)

	r := &replica{source: source, address: listener.Addr().String()}
	r.server = &http.Server{
		Handler: http.HandlerFunc(r.allow),
		// A protocol without reuse of connections: every review is a handshake.
		TLSNextProto: map[string]func(*http.Server, *tls.Conn, http.Handler){},
		TLSConfig:    &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: r.certificate, NextProtos: []string{"http/1.1"}},
		ErrorLog:     log.New(io.Discard, "", 0), // a refused handshake is counted where it hurts
	}
	r.server.SetKeepAlivesEnabled(false)

	ctx, cancel := context.WithCancel(context.Background())
	r.cancel = cancel
	r.ended.Go(func() { assert.NoError(t, source.Start(ctx)) })
	r.ended.Go(func() { _ = r.server.ServeTLS(listener, "", "") })
	t.Cleanup(r.stop)
	return r
}

// stop ends a replica that is out of the endpoints, once what was on its way to it
// has been answered.
func (r *replica) stop() {
	r.carried.Wait()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	_ = r.server.Shutdown(ctx)
	r.cancel()
	r.ended.Wait()
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

// service stands before the replicas as a Service would: it sends each connection
// to the next replica that said it was ready.
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
	target := s.pick()
	if target == nil {
		return
	}
	defer target.carried.Done()
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

func (s *service) pick() *replica {
	s.mu.Lock()
	defer s.mu.Unlock()
	for range s.replicas {
		s.next++
		if r := s.replicas[s.next%len(s.replicas)]; r.source.Ready() == nil {
			r.carried.Add(1)
			return r
		}
	}
	return nil
}

// set replaces the endpoints.
func (s *service) set(replicas ...*replica) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.replicas = replicas
}
