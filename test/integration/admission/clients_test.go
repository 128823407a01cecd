package admission

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// load is a number of clients that request reviews at the same time, and their results.
type load struct {
	t         *testing.T
	namespace *testNamespace
	// reviews is the number of all reviews, pods those through the API server, and
	// newConnections those over a new connection.
	reviews, pods, newConnections atomic.Int64
	leaves, roots, failures       stringSet

	clients sync.WaitGroup
	cancel  context.CancelFunc
	// transport trusts the current caBundle of the configuration.
	transport atomic.Pointer[http.Transport]
	bundle    []byte
}

// start starts the clients.
func (l *load) start() {
	ctx, cancel := context.WithCancel(l.t.Context())
	l.cancel = cancel
	l.updateTransport(ctx)
	l.clients.Go(func() {
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				l.updateTransport(ctx)
			}
		}
	})
	for i := range loadClients {
		request := l.reviewOnNewConnection
		switch {
		case i < loadClients/2:
			request = l.createPod
		case i < loadClients-1:
			request = l.reviewOnKeptConnection
		}
		l.clients.Go(func() {
			for ctx.Err() == nil {
				err := request()
				l.reviews.Add(1)
				l.recordFailure(err)
			}
		})
	}
}

// stop waits until every client has finished its review.
func (l *load) stop() {
	l.cancel()
	l.clients.Wait()
	l.transport.Load().CloseIdleConnections()
}

// await waits for this many reviews, pods and roots, and reports whether they were reached.
func (l *load) await(reviews, pods int64, roots int) bool {
	return await(l.t.Context(), func(context.Context) error {
		if l.reviews.Load() < reviews || l.pods.Load() < pods || l.roots.count() < roots {
			return errors.New("not yet")
		}
		return nil
	}) == nil
}

func (l *load) createPod() error {
	pod, err := l.namespace.dryRun(edgePod("edge"))
	l.pods.Add(1)
	if err == nil && !isInjected(pod) {
		err = errors.New("the pod has no sidecar")
	}
	return err
}

// reviewOnKeptConnection reuses connections, as API servers do.
func (l *load) reviewOnKeptConnection() error { return l.sendReview(l.transport.Load()) }

// reviewOnNewConnection opens a connection, as an API server does after its start.
func (l *load) reviewOnNewConnection() error {
	l.newConnections.Add(1)
	transport := l.transport.Load().Clone()
	defer transport.CloseIdleConnections()
	return l.sendReview(transport)
}

func (l *load) sendReview(transport *http.Transport) error {
	response, err := postReview(l.t.Context(), transport, env.service.url("/inject/namespace"), podRequest(l.namespace.name, minimalPod(`{"name": "edge"}`)))
	if err != nil {
		return err
	}
	l.leaves.add(response.certificate.SerialNumber.String())
	if response.status != http.StatusOK || !bytes.Contains(response.body, []byte(`"patch"`)) {
		return fmt.Errorf("HTTP %d: %s", response.status, response.body)
	}
	return nil
}

// updateTransport uses a caBundle that has changed, as API servers do.
func (l *load) updateTransport(ctx context.Context) {
	bundle, err := env.caBundle(ctx)
	if ctx.Err() != nil || bytes.Equal(bundle, l.bundle) {
		return
	}
	transport, err := transportFor(bundle, err)
	if err != nil {
		l.recordFailure(err)
		return
	}
	transport.MaxIdleConnsPerHost = loadClients
	l.bundle = bundle
	l.transport.Store(transport)
	for block, rest := pem.Decode(bundle); block != nil; block, rest = pem.Decode(rest) {
		if certificate, err := x509.ParseCertificate(block.Bytes); err == nil {
			l.roots.add(certificate.SerialNumber.String())
		}
	}
}

func (l *load) recordFailure(err error) {
	if err != nil {
		l.failures.add(time.Now().Format("15:04:05.000 ") + err.Error())
	}
}

// stringSet is a set of strings that is safe for concurrent use.
type stringSet struct {
	mu      sync.Mutex
	strings map[string]struct{}
}

func (s *stringSet) add(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.strings == nil {
		s.strings = map[string]struct{}{}
	}
	s.strings[text] = struct{}{}
}

func (s *stringSet) count() int { return len(s.list()) }

func (s *stringSet) list() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Sorted(maps.Keys(s.strings))
}
