//go:build linux

package singlenode

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"strings"
	"time"
)

// Order is a request to a running node.
type Order struct {
	// Action is kill, restart, pause or resume for a component; import for an image;
	// kill-container, pause-container or resume-container for a container, whose
	// first process gets SIGKILL, SIGSTOP or SIGCONT.
	Action string `json:"do"`
	// Component is the name of a component, the path of an image's tarball, or the
	// ID of a container. "all" with kill-container means every container, including
	// the pods' sandboxes, as when the node loses power.
	Component string `json:"component"`
}

// orderReply is the answer to an order.
type orderReply struct {
	Error string `json:"error,omitempty"`
}

// openSockets opens two sockets for processes outside of the namespaces: one leads
// to the API server, one takes orders. A socket with a path is visible in every
// network namespace.
func (n *node) openSockets(ctx context.Context) error {
	api, err := net.Listen("unix", n.path(apiSocket))
	if err != nil {
		return err
	}
	orders, err := net.Listen("unix", n.path(controlSocket))
	if err != nil {
		return err
	}
	go forward(api, "tcp", fmt.Sprintf("127.0.0.1:%d", n.Port))
	go n.serveOrders(ctx, orders)
	return nil
}

// serveOrders executes orders, one for each connection.
func (n *node) serveOrders(ctx context.Context, orders net.Listener) {
	for {
		connection, err := orders.Accept()
		if err != nil {
			return
		}
		go func() {
			defer func() { _ = connection.Close() }()
			var order Order
			var answer orderReply
			err := json.NewDecoder(connection).Decode(&order)
			if err == nil {
				err = n.execute(ctx, order)
			}
			if err != nil {
				answer.Error = err.Error()
			}
			_ = json.NewEncoder(connection).Encode(answer)
		}()
	}
}

// execute executes an order.
func (n *node) execute(ctx context.Context, order Order) error {
	switch order.Action {
	case "kill":
		return n.controlPlane.Kill(order.Component)
	case "restart":
		ctx, cancel := context.WithTimeout(ctx, n.Timeout)
		defer cancel()
		return n.controlPlane.Restart(ctx, order.Component)
	case "pause":
		return n.controlPlane.Pause(order.Component)
	case "resume":
		return n.controlPlane.Resume(order.Component)
	case "import":
		return n.importImage(ctx, order.Component)
	case "kill-container":
		if order.Component == "all" {
			return n.killAllContainers(ctx)
		}
		return n.signalContainer(ctx, "SIGKILL", order.Component)
	case "pause-container":
		return n.signalContainer(ctx, "SIGSTOP", order.Component)
	case "resume-container":
		return n.signalContainer(ctx, "SIGCONT", order.Component)
	}
	return fmt.Errorf("unknown order %q: choose from kill, restart, pause, resume, import, kill-container, pause-container, resume-container", order.Action)
}

// signalContainer sends a signal to the first process of a container.
func (n *node) signalContainer(ctx context.Context, signal, container string) error {
	return n.ctr(ctx, "--namespace", "k8s.io", "tasks", "kill", "--signal", signal, container)
}

// killAllContainers kills every container.
func (n *node) killAllContainers(ctx context.Context) error {
	listed, err := n.ctrOutput(ctx, "--namespace", "k8s.io", "tasks", "list", "--quiet")
	if err != nil {
		return err
	}
	for container := range strings.FieldsSeq(listed) {
		// Some containers end together with the previous one.
		if err := n.signalContainer(ctx, "SIGKILL", container); err != nil && !strings.Contains(err.Error(), "not found") {
			return err
		}
	}
	return nil
}

// SendOrder sends an order to the node that runs in a data folder and waits until
// the node has executed it.
func SendOrder(ctx context.Context, folder string, order Order) error {
	o := Options{Folder: folder}
	var dialer net.Dialer
	connection, err := dialer.DialContext(ctx, "unix", o.path(controlSocket))
	if err != nil {
		return fmt.Errorf("no node listens in %s: %w", folder, err)
	}
	defer func() { _ = connection.Close() }()
	defer context.AfterFunc(ctx, func() { _ = connection.SetDeadline(time.Now()) })()
	if err := json.NewEncoder(connection).Encode(order); err != nil {
		return err
	}
	var answer orderReply
	if err := json.NewDecoder(connection).Decode(&answer); err != nil {
		return fmt.Errorf("the node's answer: %w", err)
	}
	if answer.Error != "" {
		return fmt.Errorf("%s %s: %s", order.Action, order.Component, answer.Error)
	}
	return nil
}

// forward connects every connection of a listener with another address until the
// listener is closed.
func forward(from net.Listener, network, to string) {
	for {
		incoming, err := from.Accept()
		if err != nil {
			return
		}
		go func() {
			defer func() { _ = incoming.Close() }()
			outgoing, err := net.Dial(network, to)
			if err != nil {
				return
			}
			defer func() { _ = outgoing.Close() }()
			go copyOneWay(outgoing, incoming)
			copyOneWay(incoming, outgoing)
		}()
	}
}

// copyOneWay copies until from ends and then closes to for writing.
func copyOneWay(to, from net.Conn) {
	_, _ = io.Copy(to, from)
	if half, ok := to.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite()
	}
}
