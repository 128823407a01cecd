package main

import (
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"

	"golang.org/x/net/http2"
	"google.golang.org/grpc"
)

func TestRequiresTLS(t *testing.T) {
	plainText, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	go func() { _ = server.Serve(plainText) }()
	t.Cleanup(server.Stop)
	secure := httptest.NewUnstartedServer(http.NotFoundHandler())
	secure.EnableHTTP2 = true
	secure.StartTLS()
	t.Cleanup(secure.Close)
	silent, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = silent.Close() })
	go func() {
		for {
			c, err := silent.Accept()
			if err != nil {
				return
			}
			_, _ = io.ReadFull(c, make([]byte, len(http2.ClientPreface)))
			_ = c.Close()
		}
	}()
	for name, test := range map[string]struct {
		address string
		want    bool
	}{
		"if it is a plain-text gRPC server, expect no": {plainText.Addr().String(), false},
		"if it speaks TLS, expect yes":                 {secure.Listener.Addr().String(), true},
		"if it closes the connection, expect yes":      {silent.Addr().String(), true},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := requiresTLS(test.address)
			if err != nil || got != test.want {
				t.Errorf("got %v, %v, want %v", got, err, test.want)
			}
		})
	}
}

// Like Envoy's PERMISSIVE listener, this one terminates only the mesh's TLS.
func TestPermissiveListenerRejectsTLSFromOutsideTheMesh(t *testing.T) {
	_, err := permissiveTLSConfig(&tls.ClientHelloInfo{SupportedProtos: []string{"h2"}}, t.TempDir())
	if want := "TLS without ALPN istio is not the mesh's"; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	_, err = permissiveTLSConfig(&tls.ClientHelloInfo{SupportedProtos: []string{"istio", "h2"}}, t.TempDir())
	if err == nil {
		t.Error("want an error about the missing certificate")
	}
}

func TestAdjustBootstrap(t *testing.T) {
	config := map[string]any{
		"certificate_providers": map[string]any{"default": map[string]any{"config": map[string]any{"refresh_interval": "900s"}}},
		"node":                  map[string]any{"metadata": map[string]any{"LABELS": map[string]any{"app": "quote", "security.istio.io/tlsMode": "istio"}}},
	}
	adjustBootstrap(config)
	provider := nestedMap(nestedMap(nestedMap(config, "certificate_providers"), "default"), "config")
	if provider["refresh_interval"] != "1s" {
		t.Errorf("certificates are read every %v", provider["refresh_interval"])
	}
	labels := nestedMap(nestedMap(nestedMap(config, "node"), "metadata"), "LABELS")
	if len(labels) != 2 || labels["app"] != "quote" || labels["istio.io/test-vm"] != "true" {
		t.Errorf("labels %v", labels)
	}
}
