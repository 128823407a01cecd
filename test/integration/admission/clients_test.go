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

// load is what many clients do and see.
type load struct {
	t     *testing.T
	space *space
	// reviews are all that were asked for, pods those through the API server,
	// fresh those over a connection of their own.
	reviews, pods, fresh    atomic.Int64
	leaves, roots, failures set

	clients sync.WaitGroup
	end     context.CancelFunc
	// transport trusts what the configuration says at the moment.
	transport atomic.Pointer[http.Transport]
	bundle    []byte
}

// start lets the clients loose.
func (l *load) start() {
	ctx, end := context.WithCancel(l.t.Context())
	l.end = end
	l.follow(ctx)
	l.clients.Go(func() {
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				l.follow(ctx)
			}
		}
	})
	for i := range loadClients {
		one := l.askOnNewConnection
		switch {
		case i < loadClients/2:
			one = l.createPod
		case i < loadClients-1:
			one = l.ask
		}
		l.clients.Go(func() {
			for ctx.Err() == nil {
				err := one()
				l.reviews.Add(1)
				l.note(err)
			}
		})
	}
}

// stop lets every client end its review, and waits for them.
func (l *load) stop() {
	l.end()
	l.clients.Wait()
	l.transport.Load().CloseIdleConnections()
}

// reach waits for this many reviews, pods and roots, and says whether they came.
func (l *load) reach(reviews, pods int64, roots int) bool {
	return await(l.t.Context(), func(context.Context) error {
		if l.reviews.Load() < reviews || l.pods.Load() < pods || l.roots.count() < roots {
			return errors.New("not yet")
		}
		return nil
	}) == nil
}

func (l *load) createPod() error {
	pod, err := l.space.dryRun(edgePod("edge"))
	l.pods.Add(1)
	if err == nil && !isInjected(pod) {
		err = errors.New("the pod came out without a sidecar")
	}
	return err
}

// ask keeps connections, as API servers do.
func (l *load) ask() error { return l.askOver(l.transport.Load()) }

// askOnNewConnection is an API server that was just started.
func (l *load) askOnNewConnection() error {
	l.fresh.Add(1)
	transport := l.transport.Load().Clone()
	defer transport.CloseIdleConnections()
	return l.askOver(transport)
}

func (l *load) askOver(transport *http.Transport) error {
	answer, err := post(l.t.Context(), transport, world.door.url("/inject/namespace"), podRequest(l.space.name, barePod(`{"name": "edge"}`)))
	if err != nil {
		return err
	}
	l.leaves.add(answer.certificate.SerialNumber.String())
	if answer.status != http.StatusOK || !bytes.Contains(answer.body, []byte(`"patch"`)) {
		return fmt.Errorf("HTTP %d: %s", answer.status, answer.body)
	}
	return nil
}

// follow takes over a caBundle that has changed, as API servers do.
func (l *load) follow(ctx context.Context) {
	bundle, err := world.caBundle(ctx)
	if ctx.Err() != nil || bytes.Equal(bundle, l.bundle) {
		return
	}
	transport, err := transportFor(bundle, err)
	if err != nil {
		l.note(err)
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

func (l *load) note(err error) {
	if err != nil {
		l.failures.add(time.Now().Format("15:04:05.000 ") + err.Error())
	}
}

// set collects different strings.
type set struct {
	mu      sync.Mutex
	strings map[string]struct{}
}

func (s *set) add(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.strings == nil {
		s.strings = map[string]struct{}{}
	}
	s.strings[text] = struct{}{}
}

func (s *set) count() int { return len(s.list()) }

func (s *set) list() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Sorted(maps.Keys(s.strings))
}
