package security

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/isthmus-mesh/isthmus/test/framework/environment"
	"github.com/isthmus-mesh/isthmus/test/framework/scrape"
)

// TestEndpoints checks that the ports of probes and metrics serve their own paths and
// nothing else.
func TestEndpoints(t *testing.T) {
	d := sharedServers(t)
	for name, server := range map[string]*environment.Server{"webhook": d.webhook, "controller": d.controller} {
		t.Run(name, func(t *testing.T) {
			for _, url := range []string{
				server.MetricsURL() + "/debug/pprof/", server.MetricsURL() + "/debug/pprof/heap", server.MetricsURL() + "/debug/vars", server.MetricsURL() + "/", server.MetricsURL() + "/configz",
				server.HealthURL() + "/debug/pprof/", server.HealthURL() + "/debug/pprof/heap", server.HealthURL() + "/metrics", server.HealthURL() + "/",
			} {
				_, err := scrape.Get(t.Context(), url)
				assert.ErrorContains(t, err, "404", url)
			}
			// The answer holds the names of the checks and whether they pass, never the
			// cause.
			text, err := scrape.Get(t.Context(), server.HealthURL()+"/readyz?verbose")
			require.NoError(t, err)
			for line := range strings.Lines(text) {
				assert.Regexp(t, `^\[\+\](ping|isthmus|mesh) ok$|^healthz check passed$|^$`, strings.TrimSpace(line))
			}
		})
	}
}

// series returns the names and labels of a metrics page, without the values.
func series(t testing.TB, s *environment.Server) []string {
	t.Helper()
	text, err := scrape.Get(t.Context(), s.MetricsURL()+"/metrics")
	require.NoError(t, err)
	var all []string
	for line := range strings.Lines(text) {
		if !strings.HasPrefix(line, "#") {
			all = append(all, line[:strings.LastIndex(line, " ")])
		}
	}
	return all
}

// TestLabelsAreOurs checks that nothing that a client or a pod's author chooses becomes a
// label, so that no one can create series without limit.
func TestLabelsAreOurs(t *testing.T) {
	webhook := sharedServers(t).webhook
	ns := env.CreateNamespace(t, nil)
	c := client(t, true)
	sendAll := func(i int) {
		word := fmt.Sprintf("w%d", i)
		podWithAnnotation := func(key string) string {
			return strings.Replace(edgePodJSON(""), `"name":"front"`, `"annotations":{"isthmus.dev/`+key+`":"`+word+`"},"name":"`+word+`"`, 1)
		}
		good := reviewJSON(ns, edgePodJSON(""))
		for path, bodies := range map[string][]string{
			"/inject/namespace": {
				reviewJSON(word, edgePodJSON("")), reviewJSON(ns, podWithAnnotation("mode")), reviewJSON(ns, podWithAnnotation("profile")), reviewJSON(ns, podWithAnnotation("delivery")), reviewJSON(ns, podWithAnnotation(word)),
				strings.Replace(good, `"kind":"Pod"}`, `"kind":"`+word+`"}`, 1), strings.Replace(good, "CREATE", word, 1), strings.Replace(good, `"resource":"pods"`, `"resource":"`+word+`"`, 1),
			},
			"/validate/workload": {strings.Replace(good, `"resource":"pods"`, `"resource":"`+word+`"`, 1), good},
			"/" + word:           {good},
		} {
			for _, body := range bodies {
				_, err := sendReview(t.Context(), c, webhook.ReviewURL+path, strings.NewReader(body))
				require.NoError(t, err)
			}
		}
		request, err := http.NewRequestWithContext(t.Context(), "M"+strings.ToUpper(word), webhook.ReviewURL+"/inject/pod", http.NoBody)
		require.NoError(t, err)
		_, err = doRequest(c, request)
		require.NoError(t, err)
	}
	sendAll(0)
	before := series(t, webhook)
	for i := range 20 {
		sendAll(i + 1)
	}
	for _, s := range series(t, webhook) {
		if !slices.Contains(before, s) {
			assert.NotRegexp(t, `w[0-9]+|W[0-9]+|`+ns, s)
			assert.NotContains(t, s, "isthmus_admission")
		}
	}
	assert.Less(t, len(series(t, webhook)), len(before)+20)
	t.Logf("%d series before, %d after", len(before), len(series(t, webhook)))
}

// TestPlainPorts opens many connections to the ports of probes and metrics: their number is
// bounded, and a probe and a scrape get through.
func TestPlainPorts(t *testing.T) {
	d := sharedServers(t)
	for name, server := range map[string]*environment.Server{"webhook": d.webhook, "controller": d.controller} {
		t.Run(name, func(t *testing.T) {
			peakUsage := watchUsage(t, server)
			var held []net.Conn
			for _, url := range []string{server.MetricsURL(), server.HealthURL()} {
				for i := range 400 {
					conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", strings.TrimPrefix(url, "http://"))
					require.NoError(t, err)
					held = append(held, conn)
					if i%2 == 0 { // a client that sends requests and never reads the answers
						_, _ = io.WriteString(conn, strings.Repeat("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n", 100))
					}
				}
				path := "/metrics"
				if url == server.HealthURL() {
					path = "/healthz"
				}
				require.Eventually(t, func() bool {
					http.DefaultClient.CloseIdleConnections() // a new connection is accepted after all earlier ones
					_, err := scrape.Get(t.Context(), url+path)
					return err == nil
				}, timeout, pollInterval, url+path)
			}
			peak := peakUsage()
			for _, conn := range held {
				assert.NoError(t, conn.Close())
			}
			t.Logf("at most %d MiB and %d files", peak.memory>>20, peak.descriptors)
			assert.Less(t, peak.memory, int64(memoryLimit))
			assert.Less(t, peak.descriptors, 700, "connections are bounded")
		})
	}
}
