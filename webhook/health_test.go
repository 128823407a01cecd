package webhook

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/assert"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
)

// Every client that reaches the port can read which check fails, but not why.
func TestProbesSayWhichAndNeverWhy(t *testing.T) {
	probes := HealthAndMetrics{Ready: map[string]healthz.Checker{
		"mesh": func(*http.Request) error { return errors.New("the reason") },
		"ping": healthz.Ping,
	}}.probeHandler()
	for path, want := range map[string]int{
		"/readyz": http.StatusInternalServerError, "/readyz?verbose": http.StatusInternalServerError, "/readyz?exclude=mesh": http.StatusOK,
		"/readyz/": http.StatusNotFound, "/readyz/mesh": http.StatusNotFound, "/readyz/mesh?verbose": http.StatusNotFound,
		"/healthz": http.StatusOK, "/healthz/ping": http.StatusNotFound,
	} {
		t.Run(path, func(t *testing.T) {
			w := httptest.NewRecorder()
			probes.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, http.NoBody))
			assert.Equal(t, want, w.Code)
			assert.NotContains(t, w.Body.String(), "the reason")
			if path == "/readyz" {
				assert.Contains(t, w.Body.String(), "[-]mesh failed")
			}
		})
	}
}
