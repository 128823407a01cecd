package admission

import (
	"context"
	"io"
	"net"
	"sync"
	"time"
)

// door stands for the Service: the address that the API server calls. It passes
// connections on to the replicas that are ready, in turn. As with a Service, a
// replica that is no longer ready is noticed a moment later, and connections
// that are open stay open.
type door struct {
	listener net.Listener

	mu       sync.Mutex
	replicas []*replica
	ready    []*replica
	next     int
	open     map[net.Conn]struct{}
	end      chan struct{}
	running  sync.WaitGroup
}

// endpointDelay is how often it is looked who is ready.
const endpointDelay = 200 * time.Millisecond

func openDoor() (*door, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	d := &door{listener: listener, open: map[net.Conn]struct{}{}, end: make(chan struct{})}
	d.running.Go(d.accept)
	d.running.Go(d.follow)
	return d, nil
}

func (d *door) url(path string) string { return "https://" + d.listener.Addr().String() + path }

// lead makes these replicas the ones behind the door; with none, nobody
// answers, and connections that are open are cut.
func (d *door) lead(replicas ...*replica) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.replicas, d.ready = replicas, replicas
	if len(replicas) == 0 {
		d.cut()
	}
}

func (d *door) cut() {
	for connection := range d.open {
		_ = connection.Close()
	}
}

// shut ends the door.
func (d *door) shut() error {
	close(d.end)
	err := d.listener.Close()
	d.mu.Lock()
	d.cut()
	d.mu.Unlock()
	d.running.Wait()
	return err
}

// follow keeps the list of those that are ready, as the endpoint controller
// and the proxies of the nodes do.
func (d *door) follow() {
	tick := time.NewTicker(endpointDelay)
	defer tick.Stop()
	for {
		select {
		case <-d.end:
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
		if len(all) == len(d.replicas) && (len(all) == 0 || &all[0] == &d.replicas[0]) { // lead was not called meanwhile
			d.ready = ready
		}
		d.mu.Unlock()
	}
}

func (d *door) accept() {
	for {
		client, err := d.listener.Accept()
		if err != nil {
			return
		}
		d.running.Go(func() { d.pass(client) })
	}
}

// pass copies both ways until one side is done.
func (d *door) pass(client net.Conn) {
	defer d.forget(client)
	d.mu.Lock()
	d.open[client] = struct{}{}
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
	defer d.forget(server)
	d.mu.Lock()
	d.open[server] = struct{}{}
	d.mu.Unlock()
	var both sync.WaitGroup
	both.Go(func() { transfer(server, client) })
	both.Go(func() { transfer(client, server) })
	both.Wait()
}

// transfer passes the end of the stream on too, and nothing more: what is
// under way in the other direction still arrives.
func transfer(to io.Writer, from io.Reader) {
	_, _ = io.Copy(to, from)
	if half, ok := to.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite()
	}
}

func (d *door) forget(connection net.Conn) {
	_ = connection.Close()
	d.mu.Lock()
	delete(d.open, connection)
	d.mu.Unlock()
}
