package admission

import (
	"context"
	"io"
	"net"
	"sync"
	"time"
)

// serviceProxy is a TCP proxy in the place of the Service: the API server calls its
// address, and it forwards connections to the ready replicas, in turn. As with a Service,
// it observes a moment later that a replica is no longer ready, and open connections stay
// open.
type serviceProxy struct {
	listener net.Listener

	mu          sync.Mutex
	replicas    []*replica
	ready       []*replica
	next        int
	connections map[net.Conn]struct{}
	done        chan struct{}
	running     sync.WaitGroup
}

// endpointInterval is how often the readiness of replicas is checked.
const endpointInterval = 200 * time.Millisecond

func startServiceProxy() (*serviceProxy, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s := &serviceProxy{listener: listener, connections: map[net.Conn]struct{}{}, done: make(chan struct{})}
	s.running.Go(s.accept)
	s.running.Go(s.updateReady)
	return s, nil
}

func (s *serviceProxy) url(path string) string { return "https://" + s.listener.Addr().String() + path }

// setReplicas replaces the replicas of the Service. Without replicas no connection is
// answered, and open connections are closed.
func (s *serviceProxy) setReplicas(replicas ...*replica) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.replicas, s.ready = replicas, replicas
	if len(replicas) == 0 {
		s.closeConnections()
	}
}

func (s *serviceProxy) closeConnections() {
	for connection := range s.connections {
		_ = connection.Close()
	}
}

// stop stops the proxy.
func (s *serviceProxy) stop() error {
	close(s.done)
	err := s.listener.Close()
	s.mu.Lock()
	s.closeConnections()
	s.mu.Unlock()
	s.running.Wait()
	return err
}

// updateReady updates the list of ready replicas, as the endpoint controller and kube-proxy
// do.
func (s *serviceProxy) updateReady() {
	tick := time.NewTicker(endpointInterval)
	defer tick.Stop()
	for {
		select {
		case <-s.done:
			return
		case <-tick.C:
		}
		s.mu.Lock()
		all := s.replicas
		s.mu.Unlock()
		var ready []*replica
		for _, r := range all {
			if r.ready(context.Background()) == nil {
				ready = append(ready, r)
			}
		}
		s.mu.Lock()
		if len(all) == len(s.replicas) && (len(all) == 0 || &all[0] == &s.replicas[0]) { // setReplicas was not called meanwhile
			s.ready = ready
		}
		s.mu.Unlock()
	}
}

func (s *serviceProxy) accept() {
	for {
		client, err := s.listener.Accept()
		if err != nil {
			return
		}
		s.running.Go(func() { s.forward(client) })
	}
}

// forward copies in both directions until both sides are done.
func (s *serviceProxy) forward(client net.Conn) {
	defer s.closeConnection(client)
	s.mu.Lock()
	s.connections[client] = struct{}{}
	var chosen *replica
	if len(s.ready) > 0 {
		chosen = s.ready[s.next%len(s.ready)]
		s.next++
	}
	s.mu.Unlock()
	if chosen == nil {
		return
	}
	server, err := net.DialTCP("tcp", nil, &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: chosen.port})
	if err != nil {
		return
	}
	defer s.closeConnection(server)
	s.mu.Lock()
	s.connections[server] = struct{}{}
	s.mu.Unlock()
	var both sync.WaitGroup
	both.Go(func() { copyStream(server, client) })
	both.Go(func() { copyStream(client, server) })
	both.Wait()
}

// copyStream copies a stream and its end. Data in the other direction still arrives.
func copyStream(to io.Writer, from io.Reader) {
	_, _ = io.Copy(to, from)
	if writer, ok := to.(interface{ CloseWrite() error }); ok {
		_ = writer.CloseWrite()
	}
}

func (s *serviceProxy) closeConnection(connection net.Conn) {
	_ = connection.Close()
	s.mu.Lock()
	delete(s.connections, connection)
	s.mu.Unlock()
}
