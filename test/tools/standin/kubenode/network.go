package main

import (
	"fmt"
	"net"
	"runtime"
	"sync"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

const (
	// hostAddress is the address of the node and of the bridge, in the range of the
	// pods.
	hostAddress = "10.244.0.1"
	// serviceRange is the service range of the API server (test/tools/cluster);
	// loadBalancerRange holds the addresses of load balancers.
	serviceRange      = "10.96.0.0/16"
	loadBalancerRange = "10.97.0.0/16"
	bridge            = "pods"
)

// network is the bridge that connects the pods' network namespaces.
type network struct {
	bridge    netlink.Link
	mu        sync.Mutex
	lastIndex int
}

// newNetwork creates the bridge, and makes the addresses of Services local addresses of
// this network namespace.
func newNetwork() (*network, error) {
	lo, err := raiseLoopback()
	if err != nil {
		return nil, err
	}
	attributes := netlink.NewLinkAttrs()
	attributes.Name = bridge
	b := &netlink.Bridge{LinkAttrs: attributes}
	if err := netlink.LinkAdd(b); err != nil {
		return nil, fmt.Errorf("create a bridge: %w", err)
	}
	if err := addAddress(nil, b, hostAddress); err != nil {
		return nil, err
	}
	for _, text := range []string{serviceRange, loadBalancerRange} {
		_, ips, err := net.ParseCIDR(text)
		if err != nil {
			return nil, err
		}
		route := &netlink.Route{LinkIndex: lo.Attrs().Index, Dst: ips, Type: unix.RTN_LOCAL, Table: unix.RT_TABLE_LOCAL, Scope: netlink.SCOPE_HOST}
		if err := netlink.RouteAdd(route); err != nil {
			return nil, fmt.Errorf("route the addresses %s: %w", text, err)
		}
	}
	return &network{bridge: b, lastIndex: 1}, nil
}

// raiseLoopback brings up the interface lo, which is down in a new network namespace.
func raiseLoopback() (netlink.Link, error) {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return nil, err
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return nil, fmt.Errorf("bring up lo (this needs its own network namespace, and root in it): %w", err)
	}
	return lo, nil
}

// addAddress adds an address of the pods' range to a link and brings the link up.
func addAddress(h *netlink.Handle, link netlink.Link, ip string) error {
	if h == nil {
		h = &netlink.Handle{}
	}
	a := &netlink.Addr{IPNet: &net.IPNet{IP: net.ParseIP(ip).To4(), Mask: net.CIDRMask(16, 32)}}
	if err := h.AddrAdd(link, a); err != nil {
		return fmt.Errorf("give %s the address %s: %w", link.Attrs().Name, ip, err)
	}
	return h.LinkSetUp(link)
}

// sandbox is a pod's network namespace, with its address and its link on the bridge.
type sandbox struct {
	namespace netns.NsHandle
	ip        string
	link      string
}

// createSandbox creates a network namespace that is connected to the bridge.
func (n *network) createSandbox() (*sandbox, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.lastIndex++
	s := &sandbox{ip: fmt.Sprintf("10.244.%d.%d", n.lastIndex/250, n.lastIndex%250+1), link: fmt.Sprintf("pod%d", n.lastIndex)}
	var err error
	if s.namespace, err = newNamespace(); err != nil {
		return nil, err
	}
	attributes := netlink.NewLinkAttrs()
	attributes.Name, attributes.MasterIndex = s.link, n.bridge.Attrs().Index
	veth := &netlink.Veth{LinkAttrs: attributes, PeerName: "eth0", PeerNamespace: netlink.NsFd(s.namespace)}
	if err := netlink.LinkAdd(veth); err != nil {
		return nil, fmt.Errorf("connect a pod: %w", err)
	}
	if err := netlink.LinkSetUp(veth); err != nil {
		return nil, err
	}
	h, err := netlink.NewHandleAt(s.namespace)
	if err != nil {
		return nil, err
	}
	defer h.Close()
	lo, err := h.LinkByName("lo")
	if err != nil {
		return nil, err
	}
	if err := h.LinkSetUp(lo); err != nil {
		return nil, err
	}
	eth, err := h.LinkByName("eth0")
	if err != nil {
		return nil, err
	}
	if err := addAddress(h, eth, s.ip); err != nil {
		return nil, err
	}
	return s, h.RouteAdd(&netlink.Route{LinkIndex: eth.Attrs().Index, Gw: net.ParseIP(hostAddress)})
}

// remove removes the link and closes the namespace.
func (s *sandbox) remove() {
	if link, err := netlink.LinkByName(s.link); err == nil {
		_ = netlink.LinkDel(link)
	}
	_ = s.namespace.Close()
}

// newNamespace creates a network namespace and returns to the original one.
func newNamespace() (netns.NsHandle, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	original, err := netns.Get()
	if err != nil {
		return 0, err
	}
	defer func() { _ = original.Close() }()
	created, err := netns.New()
	if err != nil {
		return 0, fmt.Errorf("create a network namespace: %w", err)
	}
	return created, netns.Set(original)
}
