package prometheus

import (
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/isthmus-mesh/isthmus/test/framework/controlplane"
	"github.com/isthmus-mesh/isthmus/test/framework/process"
	"github.com/isthmus-mesh/isthmus/test/framework/scrape"
)

// recording is what Prometheus scraped every minute for hours: gauges by series.
type recording struct {
	begin  time.Time
	hours  int
	series map[string]func(minute int) float64
}

// openMetrics returns the recording as promtool imports it.
func (r recording) openMetrics() string {
	byMetric := map[string][]string{}
	for series, value := range r.series {
		metric, _, _ := strings.Cut(series, "{")
		for minute := range r.hours * 60 {
			byMetric[metric] = append(byMetric[metric], fmt.Sprintf("%s %f %d", series, value(minute), r.begin.Add(time.Duration(minute)*time.Minute).Unix()))
		}
	}
	var out strings.Builder
	for metric, lines := range byMetric {
		fmt.Fprintf(&out, "# TYPE %s gauge\n%s\n", metric, strings.Join(lines, "\n"))
	}
	return out.String() + "# EOF\n"
}

// startPrometheusWith runs a Prometheus that scrapes nothing and holds a recording.
func startPrometheusWith(t *testing.T, r recording) *prometheus {
	t.Helper()
	folder := t.TempDir()
	recorded, config := filepath.Join(folder, "recorded.om"), filepath.Join(folder, "prometheus.yml")
	require.NoError(t, os.WriteFile(recorded, []byte(r.openMetrics()), 0o600))
	require.NoError(t, os.WriteFile(config, []byte("scrape_configs: []\n"), 0o600))
	_, err := run(t.Context(), "", promtool, "tsdb", "create-blocks-from", "openmetrics", recorded, filepath.Join(folder, "data"))
	require.NoError(t, err)
	addresses, err := process.FreeAddresses(1)
	require.NoError(t, err)
	p := &prometheus{address: addresses[0]}
	log := filepath.Join(folder, "prometheus.log")
	p.Process, err = process.Start(process.Options{Name: "prometheus", Program: prometheusProgram, Log: log, Dir: folder, Arguments: []string{
		"--config.file=" + config, "--storage.tsdb.path=" + filepath.Join(folder, "data"), "--web.listen-address=" + p.address,
	}})
	require.NoError(t, err)
	t.Cleanup(func() {
		p.End(syscall.SIGTERM)
		if t.Failed() {
			t.Logf("prometheus:\n%s", controlplane.Tail(log, 20))
		}
	})
	require.Eventually(t, func() bool {
		_, err := scrape.Get(t.Context(), "http://"+p.address+"/-/ready")
		return err == nil
	}, timeout, pollInterval)
	return p
}

// minutesOf evaluates an expression for every minute of a recording, and returns the minutes
// in which it has a series, by namespace.
func (p *prometheus) minutesOf(t *testing.T, expression string, r recording) map[string][]int {
	t.Helper()
	var data struct {
		Result []struct {
			Metric map[string]string
			Values [][2]any
		}
	}
	require.NoError(t, p.queryAPI(t.Context(), "query_range", url.Values{
		"query": {expression}, "step": {"60"},
		"start": {strconv.FormatInt(r.begin.Unix(), 10)}, "end": {strconv.FormatInt(r.begin.Add(time.Duration(r.hours)*time.Hour-time.Minute).Unix(), 10)},
	}, &data))
	minutes := map[string][]int{}
	for _, one := range data.Result {
		for _, value := range one.Values {
			at, _ := value[0].(float64)
			minutes[one.Metric["namespace"]] = append(minutes[one.Metric["namespace"]], int(at-float64(r.begin.Unix()))/60)
		}
	}
	return minutes
}

// The expression of IsthmusRotationLost on hours of recorded series: of an edge that misses
// a rotation, of one that does not, and of one that reads files.
func TestLostRotationIsSeenInRecordedSeries(t *testing.T) {
	r := recording{begin: time.Now().Add(-6 * time.Hour).Truncate(time.Hour), hours: 4}
	ends := func(minute int) float64 { return float64(r.begin.Add(time.Duration(minute) * time.Minute).Unix()) }
	// A certificate lives for three hours. The controller renews it every hour.
	secretIssued := func(minute int) int { return minute / 60 * 60 }
	envoy := func(namespace string) string {
		return `envoy_cluster_ssl_certificate_expiration_unix_time_seconds{namespace="` + namespace + `",envoy_cluster_name="cluster_orders",pod="edge-1"}`
	}
	r.series = map[string]func(int) float64{
		// It loads each certificate within a minute.
		envoy("calm"): func(minute int) float64 { return ends(secretIssued(max(minute-1, 0)) + 180) },
		// It misses the second certificate, and loads the third.
		envoy("lost"): func(minute int) float64 {
			if minute < 121 {
				return ends(180)
			}
			return ends(secretIssued(minute-1) + 180)
		},
		// The agent's certificate is renewed at half of its life.
		envoy("files"): func(minute int) float64 { return ends(minute/90*90 + 180) },
		`isthmus_edge_file_readers{namespace="files"}`: func(int) float64 { return 1 },
		// The agent has stopped renewing.
		envoy("stuck"): func(int) float64 { return ends(180) },
		`isthmus_edge_file_readers{namespace="stuck"}`: func(int) float64 { return 1 },
	}
	for _, namespace := range []string{"calm", "lost", "files", "stuck"} {
		labels := `{namespace="` + namespace + `",secret="istio-certs",spiffe_id="spiffe://cluster.local/ns/` + namespace + `/sa/edge",source="istio-ca"}`
		r.series["isthmus_certificate_not_after_timestamp_seconds"+labels] = func(minute int) float64 { return ends(secretIssued(minute) + 180) }
		r.series["isthmus_certificate_not_before_timestamp_seconds"+labels] = func(minute int) float64 { return ends(secretIssued(minute)) }
	}
	var expression string
	for _, one := range alerts(t, rulesText(t, "")) {
		if one.Alert == "IsthmusRotationLost" {
			expression = one.Expr
		}
	}
	require.NotEmpty(t, expression)

	found := startPrometheusWith(t, r).minutesOf(t, expression, r)
	assert.Equal(t, []int{60, 120, 180}, found["calm"], "for less than the alert's quarter of an hour")
	lost := found["lost"]
	require.NotEmpty(t, lost)
	assert.Equal(t, 60, lost[0])
	assert.Equal(t, []int{120, 180}, lost[len(lost)-2:])
	assert.Len(t, lost, 62, "every minute of the hour, and the next two rotations")
	assert.Empty(t, found["files"], "older than the Secret's, and as it should be")
	stuck := found["stuck"]
	require.NotEmpty(t, stuck)
	assert.Equal(t, 109, stuck[0], "when less than two fifths of its life are left")
	assert.Equal(t, 239, stuck[len(stuck)-1])
}
