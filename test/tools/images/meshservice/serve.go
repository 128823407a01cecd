package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log"
	"net/http"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/isthmus-mesh/isthmus/test/tools/images/certpair"
)

// service is an HTTPS server with mutual TLS whose answer names the client. Its own
// certificate comes from the files of Istio's agent. It allows only the SPIFFE IDs in
// its list.
type service struct {
	folder  string
	allowed []string
	host    string

	mu       sync.Mutex
	current  *certpair.Pair
	draining bool
	peers    map[peer]int
	rejected map[string]int // failed handshakes, by reason
}

// peer identifies a client: the SPIFFE ID and serial number of its certificate, and the
// status of the answer.
type peer struct {
	ID     string `json:"id"`
	Serial string `json:"serial"`
	Status int    `json:"status"`
}

// answer is the body of an answer.
type answer struct {
	peer
	Host string `json:"host"`
}

func runServe(ctx context.Context, arguments []string) error {
	flags := flag.NewFlagSet("serve", flag.ContinueOnError)
	s := &service{peers: map[peer]int{}, rejected: map[string]int{}}
	flags.StringVar(&s.folder, "certificates", "/var/lib/istio/data", "`folder` with key.pem, cert-chain.pem and root-cert.pem; the service waits for them and reads them again when they change")
	listen := flags.String("listen", ":8443", "`address` for mutual TLS")
	adminAddress := flags.String("plain", ":8080", "`address` for /healthz and /peers, in plain text")
	drain := flags.Duration("drain", 5*time.Second, "how long to go on serving after the signal to end, until no client sends requests")
	flags.Func("allow", "a SPIFFE `ID` that may call; may be repeated", func(id string) error {
		s.allowed = append(s.allowed, id)
		return nil
	})
	if err := flags.Parse(arguments); err != nil {
		return err
	}
	if len(s.allowed) == 0 {
		return errors.New("no --allow: name at least one SPIFFE ID that may call")
	}
	var err error
	if s.host, err = os.Hostname(); err != nil {
		return err
	}
	go certpair.Watch(ctx, s.folder, nil, s.setPair, func(err error) { log.Print(err) })

	serverErrors := make(chan error, 2)
	secure := &http.Server{Handler: s, TLSConfig: s.tlsConfig(), ErrorLog: log.New(s, "", 0)}
	if err := startServer(secure, *listen, serverErrors); err != nil {
		return err
	}
	if err := startServer(&http.Server{Handler: s.adminHandler()}, *adminAddress, serverErrors); err != nil {
		return err
	}
	select {
	case err := <-serverErrors:
		return err
	case <-ctx.Done():
	}
	s.mu.Lock()
	s.draining = true
	s.mu.Unlock()
	time.Sleep(*drain)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return secure.Shutdown(ctx)
}

func (s *service) setPair(p *certpair.Pair) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.current = p
	log.Printf("certificate %s of %s, until %s", p.Serial, p.ID, p.NotAfter.Format(time.RFC3339))
	return nil
}

// tlsConfig requires a client certificate of the mesh. Sessions are not resumed, so
// that every connection presents the client's current certificate.
func (s *service) tlsConfig() *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS12, GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.current == nil {
			return nil, errors.New("no certificate yet")
		}
		return &tls.Config{
			MinVersion: tls.VersionTLS12, SessionTicketsDisabled: true, NextProtos: []string{"istio", "http/1.1"},
			Certificates: []tls.Certificate{s.current.Certificate},
			ClientAuth:   tls.RequireAndVerifyClientCert, ClientCAs: s.current.Pool,
		}, nil
	}}
}

// ServeHTTP answers with the client's identity: status 200 if the client is allowed, or
// else 403.
func (s *service) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	leaf := r.TLS.PeerCertificates[0]
	client := peer{ID: certpair.SPIFFEID(leaf), Serial: certpair.Serial(leaf), Status: http.StatusOK}
	if !s.allows(leaf) {
		client.Status = http.StatusForbidden
	}
	s.mu.Lock()
	s.peers[client]++
	draining := s.draining
	s.mu.Unlock()
	if draining { // close the connection after this answer, while it is idle
		w.Header().Set("Connection", "close")
	}
	writeJSON(w, client.Status, answer{client, s.host})
}

// allows reports whether the certificate has exactly one URI and the list contains it.
func (s *service) allows(leaf *x509.Certificate) bool {
	return len(leaf.URIs) == 1 && slices.Contains(s.allowed, leaf.URIs[0].String())
}

// Write counts failed handshakes. It receives the lines of the server's error log.
func (s *service) Write(line []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.rejected) < 100 {
		s.rejected[handshakeReason(string(line))]++
	}
	log.Print(string(line))
	return len(line), nil
}

// Peers is the answer of GET /peers.
type Peers struct {
	// ServerCertificate identifies the service's own current certificate; nil while
	// there is none.
	ServerCertificate *peer `json:"own"`
	// Requests counts requests by client and status.
	Requests []Requests `json:"requests"`
	// Handshakes counts failed handshakes by reason.
	Handshakes map[string]int `json:"handshakes"`
}

// Requests is the number of requests of a peer.
type Requests struct {
	peer
	Count int `json:"count"`
}

func (s *service) adminHandler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		s.mu.Lock()
		defer s.mu.Unlock()
		switch {
		case s.current == nil:
			http.Error(w, "no certificate yet", http.StatusServiceUnavailable)
		case s.draining:
			http.Error(w, "ending", http.StatusServiceUnavailable)
		default:
			_, _ = fmt.Fprintln(w, "ok")
		}
	})
	mux.HandleFunc("GET /peers", func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, http.StatusOK, s.report()) })
	return mux
}

func (s *service) report() Peers {
	s.mu.Lock()
	defer s.mu.Unlock()
	report := Peers{Requests: []Requests{}, Handshakes: map[string]int{}}
	if s.current != nil {
		report.ServerCertificate = &peer{ID: s.current.ID, Serial: s.current.Serial}
	}
	for client, count := range s.peers {
		report.Requests = append(report.Requests, Requests{client, count})
	}
	slices.SortFunc(report.Requests, func(a, b Requests) int {
		return cmp.Or(cmp.Compare(a.ID, b.ID), cmp.Compare(a.Serial, b.Serial), cmp.Compare(a.Status, b.Status))
	})
	for reason, count := range s.rejected {
		report.Handshakes[reason] = count
	}
	return report
}

func writeJSON(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body)
}
