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
	d := &serviceProxy{listener: listener, connections: map[net.Conn]struct{}{}, done: make(chan struct{})}
	d.running.Go(d.accept)
	d.running.Go(d.updateReady)
	return d, nil
}

func (d *serviceProxy) url(path string) string { return "https://" + d.listener.Addr().String() + path }

// setReplicas replaces the replicas of the Service. Without replicas no connection is
// answered, and open connections are closed.
func (d *serviceProxy) setReplicas(replicas ...*replica) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.replicas, d.ready = replicas, replicas
	if len(replicas) == 0 {
		d.closeConnections()
	}
}

func (d *serviceProxy) closeConnections() {
	for connection := range d.connections {
		_ = connection.Close()
	}
}

// stop stops the proxy.
func (d *serviceProxy) stop() error {
	close(d.done)
	err := d.listener.Close()
	d.mu.Lock()
	d.closeConnections()
	d.mu.Unlock()
	d.running.Wait()
	return err
}

// updateReady updates the list of ready replicas, as the endpoint controller and kube-proxy
// do.
func (d *serviceProxy) updateReady() {
	tick := time.NewTicker(endpointInterval)
	defer tick.Stop()
	for {
		select {
		case <-d.done:
			return
		case <-tick.C:
		}
		d.mu.Lock()
		all := d.replicas
		d.mu.Unlock()
		var ready []*replica
		for _, r := range all {
			if r.ready(context.Background()) == nil {
				ready = append(ready, r)
			}
		}
		d.mu.Lock()
		if len(all) == len(d.replicas) && (len(all) == 0 || &all[0] == &d.replicas[0]) { // setReplicas was not called meanwhile
			d.ready = ready
		}
		d.mu.Unlock()
	}
}

func (d *serviceProxy) accept() {
	for {
		client, err := d.listener.Accept()
		if err != nil {
			return
		}
		d.running.Go(func() { d.forward(client) })
	}
}

// forward copies in both directions until both sides are done.
func (d *serviceProxy) forward(client net.Conn) {
	defer d.closeConnection(client)
	d.mu.Lock()
	d.connections[client] = struct{}{}
	var chosen *replica
	if len(d.ready) > 0 {
		chosen = d.ready[d.next%len(d.ready)]
		d.next++
	}
	d.mu.Unlock()
	if chosen == nil {
		return
	}
	server, err := net.DialTCP("tcp", nil, &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: chosen.port})
	if err != nil {
		return
	}
	defer d.closeConnection(server)
	d.mu.Lock()
	d.connections[server] = struct{}{}
	d.mu.Unlock()
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

func (d *serviceProxy) closeConnection(connection net.Conn) {
	_ = connection.Close()
	d.mu.Lock()
	delete(d.connections, connection)
	d.mu.Unlock()
}
