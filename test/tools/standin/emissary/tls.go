package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// fileSecretName is the name of the Secret that stands for the certificates that Emissary
// reads from files.
const fileSecretName = "istio-certs"

// tlsContext holds the supported settings of a TLSContext and its certificates.
type tlsContext struct {
	certificate *tls.Certificate
	// roots verify the upstream's chain. If nil, the chain is not verified, as in
	// Emissary.
	roots *x509.CertPool
	alpn  []string
}

// readTLSContext returns the TLSContext of this name from any namespace, as Emissary
// does.
func (e *edge) readTLSContext(ctx context.Context, name string) (*tlsContext, error) {
	list, err := e.client.Resource(resource("tlscontexts")).List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, fmt.Errorf("read TLSContexts: %w", err)
	}
	for _, item := range list.Items {
		if item.GetName() == name {
			return e.parseTLSContext(ctx, item)
		}
	}
	return nil, fmt.Errorf("no TLSContext %s", name)
}

func (e *edge) parseTLSContext(ctx context.Context, item unstructured.Unstructured) (*tlsContext, error) {
	text := func(key string) string {
		value, _, _ := unstructured.NestedString(item.Object, "spec", key)
		return value
	}
	c := &tlsContext{}
	if protocols := text("alpn_protocols"); protocols != "" {
		c.alpn = strings.Split(strings.ReplaceAll(protocols, " ", ""), ",")
	}
	chain, key, roots, err := e.readCertificates(ctx, item, text("secret"))
	if err != nil {
		return nil, err
	}
	if name := text("ca_secret"); name != "" {
		data, err := e.readSecret(ctx, item, name)
		if err != nil {
			return nil, err
		}
		roots = data["tls.crt"]
	}
	pair, err := tls.X509KeyPair(chain, key)
	if err != nil {
		return nil, fmt.Errorf("TLSContext %s: %w", item.GetName(), err)
	}
	c.certificate = &pair
	if len(roots) > 0 {
		c.roots = x509.NewCertPool()
		c.roots.AppendCertsFromPEM(roots)
	}
	return c, nil
}

// readCertificates returns the chain, key and roots of a TLSContext. Istio's agent writes
// its files one after the other, so files that do not match are read again for up to a
// second.
func (e *edge) readCertificates(ctx context.Context, item unstructured.Unstructured, name string) (chain, key, roots []byte, err error) {
	if e.certDir == "" || name != fileSecretName {
		data, err := e.readSecret(ctx, item, name)
		return data["tls.crt"], data["tls.key"], data["root-cert.pem"], err
	}
	// Files take precedence over a Secret of the same name, and contain no roots.
	for range 20 {
		if chain, err = os.ReadFile(filepath.Join(e.certDir, "cert-chain.pem")); err != nil {
			return nil, nil, nil, err
		}
		if key, err = os.ReadFile(filepath.Join(e.certDir, "key.pem")); err != nil {
			return nil, nil, nil, err
		}
		if _, err := tls.X509KeyPair(chain, key); err == nil {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	return chain, key, nil, nil
}

// readSecret returns the data of a Secret in the namespace of the TLSContext. Unless
// secret_namespacing is false, the name may end with another namespace after a dot.
func (e *edge) readSecret(ctx context.Context, item unstructured.Unstructured, name string) (map[string][]byte, error) {
	namespace := item.GetNamespace()
	namespacing, found, _ := unstructured.NestedBool(item.Object, "spec", "secret_namespacing")
	if short, other, ok := strings.Cut(name, "."); ok && (namespacing || !found) {
		name, namespace = short, other
	}
	s, err := e.client.Resource(schema.GroupVersionResource{Version: "v1", Resource: "secrets"}).Namespace(namespace).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return nil, err
	}
	encoded, _, err := unstructured.NestedStringMap(s.Object, "data")
	if err != nil {
		return nil, err
	}
	data := map[string][]byte{}
	for key, value := range encoded {
		if data[key], err = base64.StdEncoding.DecodeString(value); err != nil {
			return nil, err
		}
	}
	return data, nil
}

// dial connects to a service, with TLS if there is a context. It verifies the chain, but
// no name.
func (e *edge) dial(ctx context.Context, address string, c *tlsContext) (net.Conn, error) {
	raw, err := (&net.Dialer{}).DialContext(ctx, "tcp4", address)
	if err != nil || c == nil {
		return raw, err
	}
	config := &tls.Config{
		MinVersion: tls.VersionTLS12, InsecureSkipVerify: true,
		// The stand-in of the service speaks gRPC, which needs h2 in addition to the
		// protocols of the TLSContext.
		NextProtos: append(append([]string{}, c.alpn...), "h2"),
		VerifyConnection: func(state tls.ConnectionState) error {
			if c.roots == nil {
				return nil
			}
			return verifyChain(state, c.roots)
		},
	}
	if c.certificate != nil {
		config.Certificates = []tls.Certificate{*c.certificate}
	}
	conn := tls.Client(raw, config)
	if err := conn.HandshakeContext(ctx); err != nil {
		_ = raw.Close()
		return nil, err
	}
	return conn, nil
}

func verifyChain(state tls.ConnectionState, roots *x509.CertPool) error {
	if len(state.PeerCertificates) == 0 {
		return errors.New("the service presents no certificate")
	}
	o := x509.VerifyOptions{Roots: roots, Intermediates: x509.NewCertPool(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}
	for _, c := range state.PeerCertificates[1:] {
		o.Intermediates.AddCert(c)
	}
	_, err := state.PeerCertificates[0].Verify(o)
	return err
}
