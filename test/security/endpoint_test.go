package security

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/isthmus-mesh/isthmus/test/scrape"
	"github.com/isthmus-mesh/isthmus/test/stage"
)

// TestEndpoints: whoever reaches the ports of probes and metrics finds these, and
// nothing else.
func TestEndpoints(t *testing.T) {
	d := servers(t)
	for name, server := range map[string]*stage.Server{"webhook": d.webhook, "controller": d.controller} {
		t.Run(name, func(t *testing.T) {
			for _, url := range []string{
				server.Metrics() + "/debug/pprof/", server.Metrics() + "/debug/pprof/heap", server.Metrics() + "/debug/vars", server.Metrics() + "/", server.Metrics() + "/configz",
				server.Health() + "/debug/pprof/", server.Health() + "/debug/pprof/heap", server.Health() + "/metrics", server.Health() + "/",
			} {
				_, err := scrape.Get(t.Context(), url)
				assert.ErrorContains(t, err, "404", url)
			}
			// The names of the checks and whether they pass; never why.
			text, err := scrape.Get(t.Context(), server.Health()+"/readyz?verbose")
			require.NoError(t, err)
			for line := range strings.Lines(text) {
				assert.Regexp(t, `^\[\+\](ping|isthmus|mesh) ok$|^healthz check passed$|^$`, strings.TrimSpace(line))
			}
		})
	}
}

// TestNotReadySaysNothing: a server that is not ready says which check fails, and
// keeps the reason for its log.
func TestNotReadySaysNothing(t *testing.T) {
	d := servers(t)
	text, err := scrape.Get(t.Context(), d.webhook.Health()+"/readyz/nothing")
	assert.Error(t, err)
	assert.NotContains(t, text, "goroutine")
}

// series are the names and labels of a metrics page, without the values.
func series(t testing.TB, s *stage.Server) []string {
	t.Helper()
	text, err := scrape.Get(t.Context(), s.Metrics()+"/metrics")
	require.NoError(t, err)
	var all []string
	for line := range strings.Lines(text) {
		if !strings.HasPrefix(line, "#") {
			all = append(all, line[:strings.LastIndex(line, " ")])
		}
	}
	return all
}

// TestLabelsAreOurs: nothing that a client or a pod's author chooses becomes a
// label, so that no one can have the server keep series without end.
func TestLabelsAreOurs(t *testing.T) {
	webhook := servers(t).webhook
	ns := world.Space(t, nil)
	c := client(t, true)
	barrage := func(i int) {
		word := fmt.Sprintf("w%d", i)
		meta := func(key string) string {
			return strings.Replace(edgePod(""), `"name":"front"`, `"annotations":{"isthmus.dev/`+key+`":"`+word+`"},"name":"`+word+`"`, 1)
		}
		good := reviewOf(ns, edgePod(""))
		for path, bodies := range map[string][]string{
			"/inject/namespace": {
				reviewOf(word, edgePod("")), reviewOf(ns, meta("mode")), reviewOf(ns, meta("profile")), reviewOf(ns, meta("delivery")), reviewOf(ns, meta(word)),
				strings.Replace(good, `"kind":"Pod"}`, `"kind":"`+word+`"}`, 1), strings.Replace(good, "CREATE", word, 1), strings.Replace(good, `"resource":"pods"`, `"resource":"`+word+`"`, 1),
			},
			"/validate/workload": {strings.Replace(good, `"resource":"pods"`, `"resource":"`+word+`"`, 1), good},
			"/" + word:           {good},
		} {
			for _, body := range bodies {
				_, err := send(t.Context(), c, webhook.Reviews+path, strings.NewReader(body))
				require.NoError(t, err)
			}
		}
		request, err := http.NewRequestWithContext(t.Context(), "M"+strings.ToUpper(word), webhook.Reviews+"/inject/pod", http.NoBody)
		require.NoError(t, err)
		_, err = do(c, request)
		require.NoError(t, err)
	}
	barrage(0)
	before := series(t, webhook)
	for i := range 20 {
		barrage(i + 1)
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
