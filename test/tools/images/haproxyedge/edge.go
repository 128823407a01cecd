package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log"
	"net"
	"net/http"
	"sync"
	"syscall"
	"time"

	"github.com/isthmus-mesh/isthmus/test/tools/images/certpair"
)

// edge is the state of the supervisor: the running HAProxy, its pair, and whether the
// edge is draining.
type edge struct {
	options *options

	replaceMu sync.Mutex // held while a new HAProxy replaces the running one
	upstream  string     // the address of the upstream; empty before the first lookup

	mu       sync.Mutex
	proxy    *proxy
	current  *certpair.Pair
	changes  int
	draining bool
}

// Certificate is the answer of GET /certificate: the certificate that HAProxy presents
// to the upstream.
type Certificate struct {
	ID       string    `json:"id"`
	Serial   string    `json:"serial"`
	NotAfter time.Time `json:"notAfter"`
	// Changes is how often the pair was replaced since the start.
	Changes int `json:"changes"`
}

// replaceProxy starts a HAProxy with a pair. If that fails, the running HAProxy goes
// on.
func (e *edge) replaceProxy(ctx context.Context, p *certpair.Pair) error {
	e.replaceMu.Lock()
	defer e.replaceMu.Unlock()
	if err := e.resolve(ctx); err != nil {
		return err
	}
	next, err := startProxy(ctx, e.options, e.upstream, p, e.currentProxy())
	if err != nil {
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.proxy != nil {
		e.changes++
	}
	e.proxy, e.current = next, p
	log.Printf("certificate %s of %s, until %s", p.Serial, p.ID, p.NotAfter.Format(time.RFC3339))
	return nil
}

// resolve looks up the address of the upstream. If the lookup fails, it keeps the
// previous address.
func (e *edge) resolve(ctx context.Context) error {
	host, port, err := net.SplitHostPort(e.options.upstream)
	if err != nil {
		return fmt.Errorf("--upstream %s: %w", e.options.upstream, err)
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	addresses, err := net.DefaultResolver.LookupHost(ctx, host)
	if err == nil {
		e.upstream = net.JoinHostPort(addresses[0], port)
	}
	if e.upstream == "" {
		return fmt.Errorf("--upstream %s: %w", e.options.upstream, err)
	}
	return nil
}

// currentProxy returns the running HAProxy; nil before the first has started.
func (e *edge) currentProxy() *proxy {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.proxy
}

// serve waits until ctx ends, reports that the edge is not ready for the drain period,
// and then lets HAProxy finish its requests.
func (e *edge) serve(ctx context.Context) error {
	if err := e.superviseUntil(ctx); err != nil {
		return err
	}
	e.mu.Lock()
	e.draining = true
	e.mu.Unlock()
	log.Printf("draining: serving for another %s", e.options.drain)
	drainContext, cancel := context.WithTimeout(context.WithoutCancel(ctx), e.options.drain)
	defer cancel()
	if err := e.superviseUntil(drainContext); err != nil {
		return err
	}
	e.replaceMu.Lock() // no further replacement
	last := e.currentProxy()
	if err := last.command.Process.Signal(syscall.SIGUSR1); err != nil {
		return err
	}
	<-last.ended // hard-stop-after in HAProxy's configuration limits the wait
	return last.err
}

// superviseUntil waits until ctx ends. It returns an error if HAProxy ends before.
func (e *edge) superviseUntil(ctx context.Context) error {
	for {
		p := e.currentProxy()
		select {
		case <-ctx.Done():
			return nil
		case <-p.ended:
		}
		e.replaceMu.Lock() // wait for a replacement that is in progress
		replaced := e.currentProxy() != p
		e.replaceMu.Unlock()
		if !replaced {
			return fmt.Errorf("haproxy ended by itself: %w", p.err)
		}
	}
}

func (e *edge) adminHandler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		e.mu.Lock()
		p, draining := e.proxy, e.draining
		e.mu.Unlock()
		if p == nil || draining {
			http.Error(w, "starting or ending", http.StatusServiceUnavailable)
			return
		}
		if _, err := p.runCommand("show info"); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		_, _ = fmt.Fprintln(w, "ok")
	})
	mux.HandleFunc("GET /certificate", func(w http.ResponseWriter, _ *http.Request) {
		e.mu.Lock()
		defer e.mu.Unlock()
		if e.current == nil {
			http.Error(w, "starting", http.StatusServiceUnavailable)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(Certificate{e.current.ID, e.current.Serial, e.current.NotAfter, e.changes})
	})
	mux.HandleFunc("GET /stats", func(w http.ResponseWriter, _ *http.Request) {
		p := e.currentProxy()
		if p == nil {
			http.Error(w, "starting", http.StatusServiceUnavailable)
			return
		}
		table, err := p.runCommand("show stat")
		if err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		w.Header().Set("Content-Type", "text/csv")
		_, _ = fmt.Fprint(w, table)
	})
	return mux
}
