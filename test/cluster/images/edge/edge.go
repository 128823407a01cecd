package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"net/http"
	"sync"
	"syscall"
	"time"

	"github.com/isthmus-mesh/isthmus/test/cluster/images/pair"
)

// edge knows which certificate is in force, and whether requests are welcome.
type edge struct {
	proxy *proxy

	mu      sync.Mutex
	current *pair.Pair
	changes int
	ready   bool
}

// Certificate is what GET /certificate answers: what HAProxy shows to the upstream.
type Certificate struct {
	ID       string    `json:"id"`
	Serial   string    `json:"serial"`
	NotAfter time.Time `json:"notAfter"`
	// Changes is how often another pair was taken since the start.
	Changes int `json:"changes"`
}

// take gives HAProxy a pair.
func (e *edge) take(p *pair.Pair) error {
	if err := e.proxy.change(p); err != nil {
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.current, e.changes = p, e.changes+1
	log.Printf("certificate %s of %s, until %s", p.Serial, p.ID, p.NotAfter.Format(time.RFC3339))
	return nil
}

func (e *edge) begin() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.ready = true
}

// end lets the word spread that this edge is not ready, then has HAProxy finish
// what is under way.
func (e *edge) end(drain, grace time.Duration) error {
	e.mu.Lock()
	e.ready = false
	e.mu.Unlock()
	log.Printf("ending: serving for another %s", drain)
	select {
	case err := <-e.proxy.ended:
		return fmt.Errorf("haproxy ended by itself: %w", err)
	case <-time.After(drain):
	}
	if err := e.proxy.command.Process.Signal(syscall.SIGUSR1); err != nil {
		return err
	}
	select {
	case err := <-e.proxy.ended:
		return err
	case <-time.After(grace):
		return errors.Join(fmt.Errorf("requests were still under way after %s", grace), e.proxy.kill())
	}
}

func (e *edge) admin() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		e.mu.Lock()
		ready := e.ready
		e.mu.Unlock()
		if !ready {
			http.Error(w, "starting or ending", http.StatusServiceUnavailable)
			return
		}
		if _, err := e.proxy.say("show info"); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		_, _ = fmt.Fprintln(w, "ok")
	})
	mux.HandleFunc("GET /certificate", func(w http.ResponseWriter, _ *http.Request) {
		e.mu.Lock()
		defer e.mu.Unlock()
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(Certificate{e.current.ID, e.current.Serial, e.current.NotAfter, e.changes})
	})
	mux.HandleFunc("GET /stats", func(w http.ResponseWriter, _ *http.Request) {
		table, err := e.proxy.say("show stat")
		if err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		w.Header().Set("Content-Type", "text/csv")
		_, _ = fmt.Fprint(w, table)
	})
	return mux
}
