package apiserver

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"strings"
)

// client sends requests to the API server with one of the authority's client
// certificates.
type client struct {
	server string
	http   *http.Client
}

// newClient returns a client of the server with the certificate of this name.
func (a *authority) newClient(server, name string) (*client, error) {
	certificate, err := tls.LoadX509KeyPair(a.path(name+".crt"), a.path(name+".key"))
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	roots.AddCert(a.certificate)
	return &client{server: server, http: &http.Client{Transport: &http.Transport{
		// No proxy: the server is on the loopback interface.
		TLSClientConfig: &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS12},
	}}}, nil
}

// readyCheck returns a check that fails unless the server answers each path with
// status 200.
func (c *client) readyCheck(paths ...string) func(context.Context) error {
	return func(ctx context.Context) error {
		for _, path := range paths {
			if err := c.get(ctx, path); err != nil {
				return err
			}
		}
		return nil
	}
}

func (c *client) get(ctx context.Context, path string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, c.server+path, nil)
	if err != nil {
		return err
	}
	response, err := c.http.Do(request)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(response.Body, 1<<20))
	if err != nil {
		return err
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("GET %s: %s: %s", path, response.Status, failedChecks(string(body)))
	}
	return nil
}

// failedChecks shortens the answer of /readyz to the checks that failed.
func failedChecks(body string) string {
	var failed []string
	for line := range strings.Lines(body) {
		if strings.HasPrefix(line, "[-]") {
			failed = append(failed, strings.TrimSpace(strings.TrimPrefix(line, "[-]")))
		}
	}
	if len(failed) == 0 {
		return strings.TrimSpace(body)
	}
	return strings.Join(failed, "; ")
}
