package scale

import (
	"encoding/pem"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"k8s.io/client-go/rest"

	"github.com/isthmus-mesh/isthmus/test/framework/environment"
)

// counter is a proxy between one replica and the API server that counts the replica's
// requests. The API server's own request metric does not tell clients apart, and client-go's
// does not tell resources apart.
type counter struct {
	// env is the environment as the replica sees it: with the counter as the API server.
	env *environment.Environment

	mu    sync.Mutex
	count map[call]int
	// read and written are the namespaces whose Secret was read and written.
	read, written map[string]bool
	// first is when a Secret was first written.
	first time.Time
}

// call is a verb, as in RBAC, and a resource with its subresource.
type call struct{ verb, resource string }

func (c call) String() string { return c.verb + " " + c.resource }

// newCounter starts a counter that ends with the benchmark. It passes the replica's own
// token on, and has no permissions itself.
func newCounter(b *testing.B, w *environment.Environment) *counter {
	b.Helper()
	target, _, err := rest.DefaultServerUrlFor(w.Admin)
	require.NoError(b, err)
	transport, err := rest.TransportFor(rest.AnonymousClientConfig(w.Admin))
	require.NoError(b, err)
	c := &counter{}
	c.reset()
	proxy := &httputil.ReverseProxy{
		Rewrite:       func(r *httputil.ProxyRequest) { r.SetURL(&url.URL{Scheme: target.Scheme, Host: target.Host}) },
		Transport:     transport,
		FlushInterval: -1, // for watches
		ModifyResponse: func(r *http.Response) error {
			c.record(r)
			return nil
		},
		// A replica that ends leaves its watches behind.
		ErrorHandler: func(out http.ResponseWriter, _ *http.Request, _ error) { out.WriteHeader(http.StatusBadGateway) },
	}
	server := httptest.NewUnstartedServer(proxy)
	server.EnableHTTP2 = true
	server.StartTLS()
	b.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
	})
	proxied := *w
	proxied.Admin = &rest.Config{Host: server.URL, TLSClientConfig: rest.TLSClientConfig{
		CAData: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}),
	}}
	c.env = &proxied
	return c
}

// record counts a response. A watch is answered when it begins.
func (c *counter) record(r *http.Response) {
	observed, namespace := parseCall(r.Request)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.count[observed]++
	if observed.resource != "secrets" {
		return
	}
	switch {
	case observed.verb == "get" && r.StatusCode < http.StatusInternalServerError && r.StatusCode != http.StatusTooManyRequests:
		c.read[namespace] = true
	case observed.verb == "patch" && r.StatusCode < http.StatusMultipleChoices:
		c.written[namespace] = true
		if c.first.IsZero() {
			c.first = time.Now()
		}
	}
}

// parseCall parses the path of a request: /api/v1 or /apis/group/version, optionally
// namespaces/name, then resource, name and subresource.
func parseCall(r *http.Request) (observed call, namespace string) {
	parts := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
	skip := map[string]int{"api": 2, "apis": 3}[parts[0]]
	if skip == 0 || len(parts) <= skip {
		return call{strings.ToLower(r.Method), "(" + parts[0] + ")"}, ""
	}
	parts = parts[skip:]
	if parts[0] == "namespaces" && len(parts) > 2 {
		namespace, parts = parts[1], parts[2:]
	}
	observed.resource = parts[0]
	if len(parts) > 2 {
		observed.resource += "/" + parts[2]
	}
	switch r.Method {
	case http.MethodGet:
		observed.verb = "get"
		if len(parts) == 1 {
			observed.verb = "list"
		}
		if watch := r.URL.Query().Get("watch"); watch == "true" || watch == "1" {
			observed.verb = "watch"
		}
		// The Secret of the webhook's CA is watched by its name.
		if strings.HasPrefix(r.URL.Query().Get("fieldSelector"), "metadata.name=") && namespace == environment.Namespace {
			observed.resource += " (one, its own)"
		}
	case http.MethodPost:
		observed.verb = "create"
	case http.MethodPut:
		observed.verb = "update"
	default:
		observed.verb = strings.ToLower(r.Method)
	}
	return observed, namespace
}

// reset sets all counts to zero.
func (c *counter) reset() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.count, c.read, c.written, c.first = map[call]int{}, map[string]bool{}, map[string]bool{}, time.Time{}
}

// requests returns the counts since reset.
func (c *counter) requests() map[call]int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.count)
}

// secrets returns the numbers of namespaces whose Secret was read and written.
func (c *counter) secrets() (read, written int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.read), len(c.written)
}

// firstWrite returns when a Secret was first written since reset.
func (c *counter) firstWrite() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.first
}

func sumRequests(requests map[call]int) int {
	n := 0
	for _, count := range requests {
		n += count
	}
	return n
}

// listsAndWatches counts the requests that the controller must not send: lists and watches
// of all Secrets.
func listsAndWatches(requests map[call]int) int {
	return requests[call{"list", "secrets"}] + requests[call{"watch", "secrets"}]
}

// sortByCount returns the calls, the most frequent first.
func sortByCount(requests map[call]int) []call {
	calls := slices.Collect(maps.Keys(requests))
	slices.SortFunc(calls, func(a, b call) int {
		if n := requests[b] - requests[a]; n != 0 {
			return n
		}
		return strings.Compare(a.String(), b.String())
	})
	return calls
}
