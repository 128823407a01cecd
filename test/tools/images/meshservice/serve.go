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

// service answers who called, in mutual TLS. It has its own certificate from the
// files of Istio's agent, and lets in the SPIFFE IDs that it is told, and no others.
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

// peer is who called: the SPIFFE ID and serial number of a certificate, and what
// was answered.
type peer struct {
	ID     string `json:"id"`
	Serial string `json:"serial"`
	Status int    `json:"status"`
}

// answer is what a caller gets.
type answer struct {
	peer
	Host string `json:"host"`
}

func runServe(ctx context.Context, arguments []string) error {
	flags := flag.NewFlagSet("serve", flag.ContinueOnError)
	s := &service{peers: map[peer]int{}, rejected: map[string]int{}}
	flags.StringVar(&s.folder, "certificates", "/var/lib/istio/data", "`folder` with key.pem, cert-chain.pem and root-cert.pem; awaited, and read again when they change")
	listen := flags.String("listen", ":8443", "`address` for mutual TLS")
	adminAddress := flags.String("plain", ":8080", "`address` for /healthz and /peers, in plain text")
	drain := flags.Duration("drain", 5*time.Second, "how long to go on serving when told to end, until nobody sends any more")
	flags.Func("allow", "a SPIFFE `ID` that may call; more than once for more", func(id string) error {
		s.allowed = append(s.allowed, id)
		return nil
	})
	if err := flags.Parse(arguments); err != nil {
		return err
	}
	if len(s.allowed) == 0 {
		return errors.New("no --allow: then nobody may call")
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

// tlsConfig asks every client for a certificate of the mesh. Sessions are not resumed:
// what a client shows is what it has now.
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

// ServeHTTP tells the caller who it is: 200 where it is allowed, 403 where not.
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
	if draining { // let go of the connection now, when nothing is under way in it
		w.Header().Set("Connection", "close")
	}
	writeJSON(w, client.Status, answer{client, s.host})
}

// allows wants exactly one URI, and that one on the list.
func (s *service) allows(leaf *x509.Certificate) bool {
	return len(leaf.URIs) == 1 && slices.Contains(s.allowed, leaf.URIs[0].String())
}

// Write counts what the server's log says of failed handshakes.
func (s *service) Write(line []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.rejected) < 100 {
		s.rejected[handshakeReason(string(line))]++
	}
	log.Print(string(line))
	return len(line), nil
}

// Peers is what /peers answers.
type Peers struct {
	// ServerCertificate is the service's own certificate of the moment; nil while there is none.
	ServerCertificate *peer `json:"own"`
	// Requests counts requests by who sent them and what was answered.
	Requests []Requests `json:"requests"`
	// Handshakes counts those that failed, by reason.
	Handshakes map[string]int `json:"handshakes"`
}

// Requests is a count of requests.
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
