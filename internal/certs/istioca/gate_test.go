package istioca

import (
	"context"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/isthmus-mesh/isthmus/internal/certs"
)

// enters reports whether a call enters the gate.
func enters(t *testing.T, g *gate) bool {
	t.Helper()
	return g.enter(t.Context()) == nil
}

func TestGateLimitsCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := &gate{patience: DefaultPatience}
		for range maxCalls {
			require.True(t, enters(t, g))
		}
		began := time.Now()
		err := g.enter(t.Context())
		require.ErrorIs(t, err, certs.ErrBusy, "a busy authority is no failure")
		require.ErrorIs(t, err, certs.ErrPending)
		assert.Equal(t, DefaultPatience, time.Since(began))

		entered := make(chan bool)
		go func() { entered <- enters(t, g) }()
		synctest.Wait()
		g.leave(nil)
		assert.True(t, <-entered, "a call that leaves makes room")
	})
}

func TestGateProbesAnAuthorityThatDoesNotAnswer(t *testing.T) {
	unanswered := &Error{Reason: Unavailable, Account: "front/edge", Err: errors.New("DeadlineExceeded")}
	for name, test := range map[string]struct {
		err       error
		isProbing bool
	}{
		"if it answers, expect no probe":                    {nil, false},
		"if it refuses, expect no probe":                    {&Error{Reason: Refused, Err: errors.New("no")}, false},
		"if its answer is rejected, expect no probe":        {&Error{Reason: Rejected, Err: errors.New("expired")}, false},
		"if the token is not accepted, expect no probe":     {&Error{Reason: Unauthenticated, Err: errors.New("no")}, false},
		"if there was no token, expect no probe":            {&Error{Reason: TokenForbidden, Err: errors.New("no")}, false},
		"if the caller gave up, expect no probe":            {&Error{Reason: Canceled, Err: context.Canceled}, false},
		"if it does not answer, expect a probe":             {unanswered, true},
		"if its certificate is another's, expect a probe":   {&Error{Reason: Untrusted, Err: errors.New("unknown authority")}, true},
		"if there was no key for the call, expect no probe": {&Error{Reason: Internal, Err: errors.New("entropy")}, false},
	} {
		t.Run(name, func(t *testing.T) {
			var available int
			g := &gate{onAvailable: func() { available++ }, patience: DefaultPatience}
			require.True(t, enters(t, g))
			g.leave(test.err)
			require.True(t, enters(t, g), "the first one probes")
			err := g.enter(t.Context())
			if !test.isProbing {
				assert.NoError(t, err)
				return
			}
			assert.Equal(t, test.err, err, "at once, with the last error")
			g.leave(&Error{Reason: TokenFailed, Err: errors.New("busy")})
			require.True(t, enters(t, g))
			assert.Error(t, g.enter(t.Context()), "the authority was not asked: still a probe")
			assert.Zero(t, available)
			g.leave(nil)
			assert.Equal(t, 1, available)
			for range maxCalls {
				assert.True(t, enters(t, g), "all again")
			}
		})
	}
}

// A request that finds the connection established says so to those that failed.
func TestGateSaysThatTheConnectionIsBack(t *testing.T) {
	for name, test := range map[string]struct {
		err       error
		connect   func(*gate)
		available int
	}{
		"if the last request was not answered, expect a call":           {&Error{Reason: Unavailable}, (*gate).connected, 1},
		"if it was answered, expect none":                               {nil, (*gate).connected, 0},
		"if a goroutine waited for the connection, expect one call":     {nil, func(g *gate) { g.endAwaiting(true) }, 1},
		"if it waited, and the request was unanswered, expect one call": {&Error{Reason: Unavailable}, func(g *gate) { g.endAwaiting(true) }, 1},
		"if the connection was replaced, expect none":                   {&Error{Reason: Unavailable}, func(g *gate) { g.endAwaiting(false) }, 0},
		"if a request is first, and then the goroutine, expect one call": {&Error{Reason: Unavailable}, func(g *gate) {
			g.beginAwaiting()
			g.connected()
			g.endAwaiting(true)
		}, 1},
		"if it connects twice, expect one call": {&Error{Reason: Unavailable}, func(g *gate) { g.connected(); g.connected() }, 1},
	} {
		t.Run(name, func(t *testing.T) {
			var available int
			g := &gate{onAvailable: func() { available++ }, patience: DefaultPatience}
			require.True(t, enters(t, g))
			g.leave(test.err)
			test.connect(g)
			assert.Equal(t, test.available, available)
		})
	}
}

// silence accepts connections and never says a word. It counts them.
type silence struct {
	net.Listener
	mu            sync.Mutex
	open, maximum int
}

func newSilence(t *testing.T) *silence {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	s := &silence{Listener: listener}
	go func() {
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			s.count(1)
			go func() {
				_, _ = c.Read(make([]byte, 1<<16)) // the client's hello
				_, _ = c.Read(make([]byte, 1))     // until the client gives up
				s.count(-1)
				_ = c.Close()
			}()
		}
	}()
	t.Cleanup(func() { _ = listener.Close() })
	return s
}

func (s *silence) count(change int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open += change
	s.maximum = max(s.maximum, s.open)
}

// Fifty requests for an authority that cannot be reached hold nobody up: there is one
// attempt to connect at a time, no token, and all of them fail together.
func TestBundleDoesNotWaitForAConnection(t *testing.T) {
	quiet := newSilence(t)
	refusing, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	refused := refusing.Addr().String()
	require.NoError(t, refusing.Close())
	for name, address := range map[string]string{"accepts and is silent": quiet.Addr().String(), "refuses": refused} {
		t.Run(name, func(t *testing.T) {
			a := newAuthority(t)
			client, specs := tokens(nil)
			s, r := a.source(t, func(o *Options) { o.Client, o.Patience = client, DefaultPatience }), a.request(t)
			r.CAAddress = address
			ask := func() {
				_, err := s.Bundle(t.Context(), r)
				assert.Equal(t, Unavailable, ReasonOf(err), "%v", err)
			}
			ask() // waits
			began := time.Now()
			var asking sync.WaitGroup
			for range 50 {
				asking.Go(ask)
			}
			asking.Wait()
			assert.Less(t, time.Since(began), 5*time.Second, "the timeout is 10 s for each")
			assert.Empty(t, specs(), "no token")
		})
	}
	quiet.mu.Lock()
	defer quiet.mu.Unlock()
	assert.Equal(t, 1, quiet.maximum, "connections at a time")
}

func TestBundleOfAnAuthorityThatComesBack(t *testing.T) {
	a := newAuthority(t)
	proxy, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	address := proxy.Addr().String()
	require.NoError(t, proxy.Close()) // nobody listens yet
	available := make(chan struct{}, 10)
	s := a.source(t)
	s.OnAvailable(func() { available <- struct{}{} })
	r := a.request(t)
	r.CAAddress = address
	for range 3 {
		_, err = s.Bundle(t.Context(), r)
		require.Equal(t, Unavailable, ReasonOf(err), "%v", err)
	}
	proxy, err = net.Listen("tcp", address)
	require.NoError(t, err)
	t.Cleanup(func() { _ = proxy.Close() })
	go forward(proxy, a.address)
	select {
	case <-available:
	case <-time.After(15 * time.Second):
		t.Fatal("nobody said that the authority is back")
	}
	_, err = s.Bundle(t.Context(), r)
	require.NoError(t, err)
	assert.Empty(t, available, "once")
}

// forward forwards connections to another address.
func forward(listener net.Listener, address string) {
	for {
		in, err := listener.Accept()
		if err != nil {
			return
		}
		out, err := net.Dial("tcp", address)
		if err != nil {
			_ = in.Close()
			continue
		}
		pipe := func(to, from net.Conn) {
			buffer := make([]byte, 1<<14)
			for {
				n, err := from.Read(buffer)
				if n > 0 {
					if _, failed := to.Write(buffer[:n]); failed != nil {
						return
					}
				}
				if err != nil {
					_ = to.Close()
					return
				}
			}
		}
		go pipe(in, out)
		go pipe(out, in)
	}
}

// An authority that accepts requests and never answers them gets maxCalls, and then
// one at a time; other requests do not wait for it.
func TestBundleOfAnAuthorityThatDoesNotAnswer(t *testing.T) {
	a := newAuthority(t)
	var present, maximum atomic.Int32
	a.answers(func(ctx context.Context, _ request) ([]string, error) {
		maximum.Store(max(maximum.Load(), present.Add(1)))
		defer present.Add(-1)
		<-ctx.Done()
		return nil, ctx.Err()
	})
	s := a.source(t, func(o *Options) { o.Timeout, o.Patience = time.Second, DefaultPatience })
	ask := func() error {
		_, err := s.Bundle(t.Context(), a.request(t))
		return err
	}
	var asking sync.WaitGroup
	var busy atomic.Int32
	for range 3 * maxCalls {
		asking.Go(func() {
			err := ask()
			if ReasonOf(err) == Busy {
				assert.ErrorIs(t, err, certs.ErrPending)
				assert.NotContains(t, err.Error(), "check that")
				busy.Add(1)
				return
			}
			assert.Equal(t, Unavailable, ReasonOf(err), "%v", err)
		})
	}
	asking.Wait()
	assert.EqualValues(t, maxCalls, maximum.Load())
	assert.Positive(t, busy.Load())

	available := make(chan struct{}, 10)
	for _, c := range s.connections.open {
		c.gate.onAvailable = func() { available <- struct{}{} }
	}
	s.options.Timeout = time.Minute
	probes, answer := make(chan struct{}, 100), make(chan struct{})
	a.answers(func(ctx context.Context, r request) ([]string, error) {
		probes <- struct{}{}
		<-answer
		return a.sign(ctx, r)
	})
	probe := make(chan error)
	go func() { probe <- ask() }()
	<-probes
	for range 20 {
		err := ask()
		assert.Equal(t, Unavailable, ReasonOf(err), "%v", err)
		assert.NotErrorIs(t, err, certs.ErrPending, "the error of the last request")
	}
	assert.Empty(t, available)
	close(answer)
	require.NoError(t, <-probe)
	assert.Empty(t, probes, "one probe at a time")
	assert.Len(t, available, 1)
	require.NoError(t, ask())
}
