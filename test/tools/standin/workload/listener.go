package main

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"golang.org/x/net/http2"
)

// listener accepts the connections of clients for gRPC's xDS server. With mTLS mode
// STRICT it forwards every byte to that server, which terminates TLS. With PERMISSIVE
// istiod configures that server for plain text: the listener forwards plain text, and
// terminates the mesh's mTLS itself with the agent's certificates. Like Envoy's listener,
// it recognizes the mesh's mTLS by ALPN istio.
type listener struct {
	mu sync.Mutex
	// callers are the clients whose TLS was terminated, by the address of the
	// connection to the inner server.
	callers map[string]caller
}

func (f *listener) serve(outer, inner, certificates string) error {
	l, err := net.Listen("tcp4", outer)
	if err != nil {
		return err
	}
	for {
		in, err := l.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer func() { _ = in.Close() }()
			if err := f.handle(in, inner, certificates); err != nil {
				log.Printf("from %s: %v", in.RemoteAddr(), err)
			}
		}()
	}
}

func (f *listener) handle(in net.Conn, inner, certificates string) error {
	reader := bufio.NewReader(in)
	first, err := reader.Peek(1)
	if err != nil {
		return err
	}
	var conn net.Conn = bufferedConn{in, reader}
	strict, err := requiresTLS(inner)
	if err != nil {
		return err
	}
	var peer caller
	if isTLSHandshake(first[0]) && !strict {
		secure := tls.Server(conn, &tls.Config{
			MinVersion: tls.VersionTLS12,
			GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
				return permissiveTLSConfig(hello, certificates)
			},
		})
		if err := secure.Handshake(); err != nil {
			return err
		}
		conn, peer = secure, callerOf(secure.ConnectionState())
	}
	out, err := net.Dial("tcp4", inner)
	if err != nil {
		return err
	}
	defer func() { _ = out.Close() }()
	defer f.trackCaller(out.LocalAddr().String(), peer)()
	go func() {
		_, _ = io.Copy(out, conn)
		_ = out.Close()
	}()
	_, _ = io.Copy(conn, out)
	return nil
}

// trackCaller stores a client until the returned function is called.
func (f *listener) trackCaller(address string, peer caller) func() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.callers == nil {
		f.callers = map[string]caller{}
	}
	f.callers[address] = peer
	return func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		delete(f.callers, address)
	}
}

func (f *listener) caller(address string) caller {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.callers[address]
}

// permissiveTLSConfig returns the TLS configuration of a PERMISSIVE listener. It returns an
// error for TLS from outside of the mesh.
func permissiveTLSConfig(hello *tls.ClientHelloInfo, folder string) (*tls.Config, error) {
	if !slices.Contains(hello.SupportedProtos, "istio") {
		return nil, errors.New("TLS without ALPN istio is not the mesh's")
	}
	pair, err := tls.LoadX509KeyPair(filepath.Join(folder, "cert-chain.pem"), filepath.Join(folder, "key.pem"))
	if err != nil {
		return nil, err
	}
	roots, err := os.ReadFile(filepath.Join(folder, "root-cert.pem"))
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(roots)
	return &tls.Config{
		MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{pair}, NextProtos: []string{"istio"},
		ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool,
	}, nil
}

// requiresTLS reports whether the inner server requires TLS. To a client of plain-text
// HTTP/2, a plain-text server sends its settings; a TLS server sends an alert or closes
// the connection.
func requiresTLS(inner string) (bool, error) {
	conn, err := net.Dial("tcp4", inner)
	if err != nil {
		return false, err
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(2 * time.Second))
	if _, err := io.WriteString(conn, http2.ClientPreface); err != nil {
		return false, err
	}
	if err := http2.NewFramer(conn, conn).WriteSettings(); err != nil {
		return false, err
	}
	var header [4]byte
	if _, err := io.ReadFull(conn, header[:]); err != nil {
		return true, nil //nolint:nilerr // A closed connection means TLS.
	}
	return header[3] != byte(http2.FrameSettings), nil
}

// isTLSHandshake reports whether the first byte of a connection is that of a TLS handshake.
func isTLSHandshake(first byte) bool { return first == 0x16 }

// bufferedConn is a connection that is read through a buffer.
type bufferedConn struct {
	net.Conn
	reader io.Reader
}

func (p bufferedConn) Read(b []byte) (int, error) { return p.reader.Read(b) }

// caller identifies a client: the SPIFFE ID and the serial number of its certificate. Both
// are empty for plain text.
type caller struct{ id, serial string }

func callerOf(state tls.ConnectionState) caller {
	if len(state.PeerCertificates) == 0 {
		return caller{}
	}
	leaf := state.PeerCertificates[0]
	peer := caller{serial: fmt.Sprintf("%X", leaf.SerialNumber)}
	for _, uri := range leaf.URIs {
		peer.id = uri.String()
	}
	return peer
}
