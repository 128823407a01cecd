package prometheus

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/isthmus-mesh/isthmus/test/framework/controlplane"
	"github.com/isthmus-mesh/isthmus/test/framework/process"
	"github.com/isthmus-mesh/isthmus/test/framework/scrape"
)

// prometheus is a running Prometheus.
type prometheus struct {
	*process.Process
	address string
}

// startPrometheus runs a Prometheus with the two jobs of Istio's addon that find targets by
// annotations, and the rules in the addon's ConfigMap. It scrapes every second. The
// addresses of pods lead nowhere; localAddresses maps each to an address on this machine.
func (env *environment) startPrometheus(t *testing.T, localAddresses map[string]string) *prometheus {
	t.Helper()
	settings, err := env.kube.CoreV1().ConfigMaps("istio-system").Get(t.Context(), "prometheus", metav1.GetOptions{})
	require.NoError(t, err)
	config := map[string]any{}
	require.NoError(t, yaml.Unmarshal([]byte(settings.Data["prometheus.yml"]), &config))
	config["global"] = map[string]any{"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"}

	found := env.startDiscovery(t)
	var jobs []any
	for _, one := range config["scrape_configs"].([]any) {
		job := one.(map[string]any)
		if name := job["job_name"]; name != "kubernetes-pods" && name != "kubernetes-service-endpoints" {
			continue
		}
		role := job["kubernetes_sd_configs"].([]any)[0].(map[string]any)["role"]
		job["http_sd_configs"] = []any{map[string]any{"url": fmt.Sprintf("%s/%s", found, role), "refresh_interval": "1s"}}
		delete(job, "kubernetes_sd_configs")
		for pod, localAddress := range localAddresses {
			job["relabel_configs"] = append(job["relabel_configs"].([]any), map[string]any{
				"source_labels": []any{"__address__"}, "regex": regexp.QuoteMeta(pod), "target_label": "__address__", "replacement": localAddress,
			})
		}
		jobs = append(jobs, job)
	}
	require.Len(t, jobs, 2, "the jobs of Istio's addon")
	config["scrape_configs"] = jobs

	folder := t.TempDir()
	for i, file := range config["rule_files"].([]any) {
		name := filepath.Base(file.(string))
		path := filepath.Join(folder, name)
		config["rule_files"].([]any)[i] = path
		// The alerts' own durations are up to a quarter of an hour.
		rules := regexp.MustCompile(`(?m)^(\s+for): \w+$`).ReplaceAllString(settings.Data[name], "$1: 1s")
		require.NoError(t, os.WriteFile(path, []byte(rules), 0o600))
	}
	content, err := yaml.Marshal(config)
	require.NoError(t, err)
	file := filepath.Join(folder, "prometheus.yml")
	require.NoError(t, os.WriteFile(file, content, 0o600))
	addresses, err := process.FreeAddresses(1)
	require.NoError(t, err)
	p := &prometheus{address: addresses[0]}
	log := filepath.Join(env.folder, "prometheus.log")
	p.Process, err = process.Start(process.Options{Name: "prometheus", Program: prometheusProgram, Log: log, Dir: folder, Arguments: []string{
		"--config.file=" + file, "--storage.tsdb.path=" + filepath.Join(folder, "data"), "--web.listen-address=" + p.address,
	}})
	require.NoError(t, err)
	t.Cleanup(func() {
		p.End(syscall.SIGTERM)
		if t.Failed() {
			t.Logf("prometheus:\n%s", controlplane.Tail(log, 20))
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	defer cancel()
	require.NoError(t, p.AwaitReady(ctx, func(ctx context.Context) error {
		_, err := scrape.Get(ctx, "http://"+p.address+"/-/ready")
		return err
	}))
	return p
}

// queryAPI sends a request to Prometheus' API, and decodes the data of the answer into
// "into".
func (p *prometheus) queryAPI(ctx context.Context, path string, parameters url.Values, into any) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+p.address+"/api/v1/"+path+"?"+parameters.Encode(), http.NoBody)
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	var answer struct {
		Status, Error string
		Data          json.RawMessage
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return fmt.Errorf("%s: %w: %s", path, err, body)
	}
	if answer.Status != "success" {
		return fmt.Errorf("%s: %s", path, answer.Error)
	}
	return json.Unmarshal(answer.Data, into)
}

// sample is the current value of a series.
type sample struct {
	Labels map[string]string
	Value  float64
}

// query evaluates an expression.
func (p *prometheus) query(ctx context.Context, expression string) ([]sample, error) {
	var data struct {
		Result []struct {
			Metric map[string]string
			Value  [2]any
		}
	}
	if err := p.queryAPI(ctx, "query", url.Values{"query": {expression}}, &data); err != nil {
		return nil, fmt.Errorf("%s: %w", expression, err)
	}
	samples := make([]sample, len(data.Result))
	for i, r := range data.Result {
		written, _ := r.Value[1].(string)
		value, err := strconv.ParseFloat(written, 64)
		if err != nil {
			return nil, err
		}
		samples[i] = sample{r.Metric, value}
	}
	return samples, nil
}

// awaitQuery evaluates an expression until it returns this number of series.
func (p *prometheus) awaitQuery(t *testing.T, expression string, count int) []sample {
	t.Helper()
	var found []sample
	var err error
	require.Eventually(t, func() bool {
		found, err = p.query(t.Context(), expression)
		return err == nil && len(found) == count
	}, timeout, pollInterval, "want %d series of %s", count, expression)
	return found
}

// firingAlerts returns the sorted names of the alerts that fire.
func (p *prometheus) firingAlerts(ctx context.Context) ([]string, error) {
	var data struct {
		Alerts []struct {
			Labels map[string]string
			State  string
		}
	}
	if err := p.queryAPI(ctx, "alerts", nil, &data); err != nil {
		return nil, err
	}
	names := []string{}
	for _, a := range data.Alerts {
		if a.State == "firing" {
			names = append(names, a.Labels["alertname"])
		}
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}

// awaitFiring waits until exactly these alerts fire.
func (p *prometheus) awaitFiring(t *testing.T, names ...string) {
	t.Helper()
	require.EventuallyWithT(t, func(c *assert.CollectT) {
		found, err := p.firingAlerts(t.Context())
		require.NoError(c, err)
		require.ElementsMatch(c, names, found)
	}, timeout, pollInterval)
}
