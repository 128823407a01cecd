package prometheus

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"
)

// rulesFile is a Prometheus rules file, as far as the tests read it.
type rulesFile struct {
	Groups []struct {
		Name  string `json:"name"`
		Rules []rule `json:"rules"`
	} `json:"groups"`
}

type rule struct {
	Alert       string            `json:"alert"`
	Expr        string            `json:"expr"`
	Labels      map[string]string `json:"labels"`
	Annotations map[string]string `json:"annotations"`
}

// withoutController are values that disable the controller.
const withoutController = `
controller: {enabled: false}
certificate: {mode: cert-manager}
`

// rulesText returns the rules file that the chart renders with these additional values.
func rulesText(t *testing.T, values string) string {
	t.Helper()
	list := render(t, "integrations: {alerts: {configMap: {enabled: true}}}\n"+values)
	return text(t, find(t, list, "ConfigMap", "isthmus-alerts"), "alerting_rules.yml")
}

// alerts returns the alerting rules of all groups of a file.
func alerts(t *testing.T, text string) []rule {
	t.Helper()
	var file rulesFile
	require.NoError(t, yaml.Unmarshal([]byte(text), &file))
	var rules []rule
	for _, g := range file.Groups {
		rules = append(rules, g.Rules...)
	}
	require.NotEmpty(t, rules)
	return rules
}

func TestRulesAreValid(t *testing.T) {
	for name, c := range map[string]struct {
		values string
		count  string
	}{
		"with the controller":                       {"", "19 rules found"},
		"without the controller, without its rules": {withoutController, "6 rules found"},
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "alerting_rules.yml")
			require.NoError(t, os.WriteFile(file, []byte(rulesText(t, c.values)), 0o600))
			out, err := run(t.Context(), "", promtool, "check", "rules", "--lint=all", "--lint-fatal", file)
			require.NoError(t, err)
			assert.Contains(t, out, c.count)
		})
	}
}

// The Prometheus operator gets the same rules that promtool has tested.
func TestPrometheusRuleIsTheRulesFile(t *testing.T) {
	for name, values := range map[string]string{"with the controller": "", "without the controller": withoutController} {
		t.Run(name, func(t *testing.T) {
			list := render(t, "integrations: {alerts: {configMap: {enabled: true}, prometheusRule: {enabled: true}}}\n"+values)
			want := map[string]any{}
			require.NoError(t, yaml.Unmarshal([]byte(text(t, find(t, list, "ConfigMap", "isthmus-alerts"), "alerting_rules.yml")), &want))
			got, _, err := unstructured.NestedMap(find(t, list, "PrometheusRule", "isthmus").Object, "spec")
			require.NoError(t, err)
			assert.Equal(t, want, got)
		})
	}
}

// promtool runs the tests of testdata against the rules that the chart renders.
func TestAlertsFireAndResolve(t *testing.T) {
	rules := rulesText(t, "")
	for _, file := range testFiles(t) {
		t.Run(filepath.Base(file), func(t *testing.T) {
			folder := t.TempDir()
			content, err := os.ReadFile(file)
			require.NoError(t, err)
			test := filepath.Join(folder, "test.yaml")
			require.NoError(t, os.WriteFile(test, content, 0o600))
			require.NoError(t, os.WriteFile(filepath.Join(folder, "alerting_rules.yml"), []byte(rules), 0o600))
			_, err = run(t.Context(), "", promtool, "test", "rules", test)
			assert.NoError(t, err)
		})
	}
}

func testFiles(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob("testdata/*.yaml")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	return files
}

// The tests show that every alert is silent, then fires, then is silent again.
func TestEveryAlertIsTested(t *testing.T) {
	type check struct {
		Alert    string           `json:"alertname"`
		Expected []map[string]any `json:"exp_alerts"`
	}
	states := map[string]string{}
	for _, file := range testFiles(t) {
		content, err := os.ReadFile(file)
		require.NoError(t, err)
		var suite struct {
			Tests []struct {
				Checks []check `json:"alert_rule_test"`
			} `json:"tests"`
		}
		require.NoError(t, yaml.Unmarshal(content, &suite))
		for _, test := range suite.Tests {
			for _, c := range test.Checks {
				state := "0"
				if len(c.Expected) > 0 {
					state = "1"
				}
				states[c.Alert] += state
			}
			for alert := range states {
				states[alert] += " "
			}
		}
	}
	for _, r := range alerts(t, rulesText(t, "")) {
		assert.Regexp(t, "01+0", states[r.Alert], r.Alert)
		delete(states, r.Alert)
	}
	assert.Empty(t, states, "there are tests of alerts that do not exist")
}

func TestEveryAlertHasASeveritySummaryAndRunbook(t *testing.T) {
	const page = "https://github.com/isthmus-mesh/isthmus/blob/main/docs/"
	aggregated := regexp.MustCompile(`by \(([^)]*)\)`)
	labelReference := regexp.MustCompile(`\$labels\.(\w+)`)
	for _, r := range alerts(t, rulesText(t, "")) {
		t.Run(r.Alert, func(t *testing.T) {
			assert.Contains(t, []string{"critical", "warning", "info"}, r.Labels["severity"])
			assert.NotEmpty(t, r.Annotations["summary"])
			message := r.Annotations["summary"] + r.Annotations["description"]
			// What is compared by "on" adds no label to the alert.
			expr, _, joins := strings.Cut(r.Expr, "group_left")
			if !joins {
				expr = r.Expr
			}
			for _, match := range aggregated.FindAllStringSubmatch(expr, -1) {
				for label := range strings.SplitSeq(match[1], ", ") {
					if label != "mode" {
						assert.Contains(t, message, "$labels."+label, "the alert names the object")
					}
				}
				for _, used := range labelReference.FindAllStringSubmatch(message, -1) {
					assert.Contains(t, strings.Split(match[1], ", "), used[1], "the alert has no such label")
				}
			}
			path, cut := strings.CutPrefix(r.Annotations["runbook_url"], page)
			require.True(t, cut, r.Annotations["runbook_url"])
			file, anchor, _ := strings.Cut(path, "#")
			assert.Equal(t, strings.ToLower(r.Alert), anchor)
			content, err := os.ReadFile(filepath.Join(root, "docs", file))
			require.NoError(t, err)
			assert.Regexp(t, "(?m)^#+ "+r.Alert+"$", string(content))
		})
	}
}
