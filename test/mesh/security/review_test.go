package security

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// timeout limits each wait, with room for a busy machine.
const timeout = 60 * time.Second

// packageContext outlives each test: tests share what is started with it.
func packageContext() context.Context { return context.Background() }

// caBundle returns the CA bundle by which the API server verifies the webhook.
func caBundle(t testing.TB) *x509.CertPool {
	t.Helper()
	c, err := env.Kube.AdmissionregistrationV1().MutatingWebhookConfigurations().Get(t.Context(), "isthmus-injector", metav1.GetOptions{})
	require.NoError(t, err)
	pool := x509.NewCertPool()
	require.True(t, pool.AppendCertsFromPEM(c.Webhooks[0].ClientConfig.CABundle))
	return pool
}

// tlsConfig returns the TLS configuration of the API server.
func tlsConfig(t testing.TB, protocols ...string) *tls.Config {
	t.Helper()
	return &tls.Config{RootCAs: caBundle(t), MinVersion: tls.VersionTLS12, NextProtos: protocols}
}

// client returns a client with its own connections.
func client(t testing.TB, http2 bool) *http.Client {
	t.Helper()
	transport := &http.Transport{TLSClientConfig: tlsConfig(t), ForceAttemptHTTP2: http2}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: timeout}
}

// answer is a complete response.
type answer struct {
	code   int
	body   string
	header http.Header
}

// sendReview posts a body with the content type of a review.
func sendReview(ctx context.Context, c *http.Client, url string, body io.Reader) (answer, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, url, body)
	if err != nil {
		return answer{}, err
	}
	request.Header.Set("Content-Type", "application/json")
	return doRequest(c, request)
}

func doRequest(c *http.Client, request *http.Request) (answer, error) {
	response, err := c.Do(request)
	if err != nil {
		return answer{}, err
	}
	defer func() { _ = response.Body.Close() }()
	text, err := io.ReadAll(response.Body)
	return answer{response.StatusCode, string(text), response.Header}, err
}

// containerJSON is an empty container with the API server's defaults.
const containerJSON = `{"name":"","resources":{},"terminationMessagePath":"/dev/termination-log","terminationMessagePolicy":"File","imagePullPolicy":"Always"}`

// reviewJSON returns a review of the creation of a pod, given as JSON.
func reviewJSON(namespace, pod string) string {
	return fmt.Sprintf(`{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1","request":{"uid":"705ab4f5-6393-11e8-b7cc-42010a800002",`+
		`"kind":{"group":"","version":"v1","kind":"Pod"},"resource":{"group":"","version":"v1","resource":"pods"},`+
		`"name":"","namespace":%q,"operation":"CREATE","userInfo":{"username":"attacker"},"object":%s}}`, namespace, pod)
}

// edgePodJSON returns an Emissary pod, with fields that an attacker adds to its spec.
func edgePodJSON(spec string) string {
	return `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"front","labels":{"app":"emissary"}},"spec":{` + spec +
		`"containers":[{"name":"ambassador","image":"docker.io/emissaryingress/emissary:3.9.1"}]}}`
}

// sendGoodReview returns nil when a good review is answered with an injection.
func sendGoodReview(ctx context.Context, c *http.Client, url, namespace string) error {
	a, err := sendReview(ctx, c, url+"/inject/namespace", strings.NewReader(reviewJSON(namespace, edgePodJSON(""))))
	switch {
	case err != nil:
		return err
	case a.code != http.StatusOK || !strings.Contains(a.body, `"reason":"injected"`):
		return fmt.Errorf("%d: %.200s", a.code, a.body)
	}
	return nil
}

// reviewsDuring sends good reviews, one after the other, while attack runs, and requires
// that each is answered. It returns their number.
func reviewsDuring(t testing.TB, url, namespace string, attack func()) int {
	t.Helper()
	c := client(t, true)
	require.NoError(t, sendGoodReview(t.Context(), c, url, namespace), "before the attack")
	done := make(chan struct{})
	go func() {
		defer close(done)
		attack()
	}()
	for n := 1; ; n++ {
		require.NoError(t, sendGoodReview(t.Context(), c, url, namespace), "good review %d", n)
		select {
		case <-done:
			return n
		case <-time.After(5 * time.Millisecond):
		}
	}
}
