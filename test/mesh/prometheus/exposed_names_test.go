package prometheus

import (
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// selector is a metric as an expression selects it.
type selector struct {
	metric string
	// matchers are the label matchers: label, operator, value.
	matchers [][3]string
}

var (
	quotedString   = regexp.MustCompile(`"[^"]*"`)
	groupingClause = regexp.MustCompile(`\b(?:by|without|on|ignoring)\s*\(([^)]*)\)`)
	labeledMetric  = regexp.MustCompile(`([a-zA-Z_:][a-zA-Z0-9_:]*)\{([^}]*)\}`)
	labelMatcher   = regexp.MustCompile(`([a-zA-Z_][a-zA-Z0-9_]*)\s*(=~|!~|!=|=)\s*"([^"]*)"`)
	rangeOrOffset  = regexp.MustCompile(`\[\d+[smhd]\]|\boffset\s+\w+`)
	identifier     = regexp.MustCompile(`[a-zA-Z_:][a-zA-Z0-9_:]*\s*\(?`)
	keywords       = []string{"and", "or", "unless", "bool"}
)

// selectors returns the metrics of an expression, and the labels that it groups by.
func selectors(expression string) (found []selector, labels []string) {
	for _, match := range groupingClause.FindAllStringSubmatch(expression, -1) {
		for label := range strings.SplitSeq(match[1], ",") {
			labels = append(labels, strings.TrimSpace(label))
		}
	}
	rest := groupingClause.ReplaceAllString(rangeOrOffset.ReplaceAllString(expression, " "), " ")
	for _, match := range labeledMetric.FindAllStringSubmatch(rest, -1) {
		s := selector{metric: match[1]}
		for _, m := range labelMatcher.FindAllStringSubmatch(match[2], -1) {
			s.matchers = append(s.matchers, [3]string{m[1], m[2], m[3]})
		}
		found = append(found, s)
	}
	rest = quotedString.ReplaceAllString(labeledMetric.ReplaceAllString(rest, " "), " ")
	for _, env := range identifier.FindAllString(rest, -1) {
		if name := strings.TrimSpace(env); !strings.HasSuffix(name, "(") && !slices.Contains(keywords, name) {
			found = append(found, selector{metric: name})
		}
	}
	return found, labels
}

func TestSelectorsOfAnExpression(t *testing.T) {
	found, labels := selectors(`sum by (a, b) (increase(x_total{a="1", b=~"[2]|3"}[5m])) > 0 or y - time() unless max(z offset 5m)`)
	assert.Equal(t, []selector{
		{metric: "x_total", matchers: [][3]string{{"a", "=", "1"}, {"b", "=~", "[2]|3"}}}, {metric: "y"}, {metric: "z"},
	}, found)
	assert.Equal(t, []string{"a", "b"}, labels)
}

// apiServerPrefix begins the names of the API server's own metrics. Prometheus does not
// scrape the API server here; the test reads them itself.
const apiServerPrefix = "apiserver_"

// testNamesAreExposed compares every metric, label and value that alerts and dashboards name
// with what the running servers expose, after all other parts of the test.
func testNamesAreExposed(t *testing.T, env *environment, p *prometheus) {
	all := expressions(t)
	for _, r := range alerts(t, rulesText(t, "")) {
		all[r.Alert] = r.Expr
	}
	apiServer, err := env.kubectl(t.Context(), "get", "--raw", "/metrics")
	require.NoError(t, err)
	for name, expression := range all {
		t.Run(name, func(t *testing.T) {
			found, grouped := selectors(expression)
			require.NotEmpty(t, found)
			known := map[string]bool{"le": true}
			for _, s := range found {
				if strings.HasPrefix(s.metric, apiServerPrefix) {
					assertInText(t, apiServer, s)
					known["name"] = true
					continue
				}
				for label := range assertExposed(t, p, s) {
					known[label] = true
				}
			}
			for _, label := range grouped {
				assert.True(t, known[label], "it groups by %s, which no metric has", label)
			}
		})
	}
	for _, d := range dashboards(t) {
		for _, v := range d.Templating.List {
			if v.Definition == "" {
				continue
			}
			match := regexp.MustCompile(`^label_values\((.+), (\w+)\)$`).FindStringSubmatch(v.Definition)
			require.NotNil(t, match, v.Definition)
			found, err := p.query(t.Context(), match[1])
			require.NoError(t, err)
			require.NotEmpty(t, found, v.Definition)
			assert.Contains(t, found[0].Labels, match[2])
		}
	}
}

// assertExposed checks a metric against the series of Prometheus, and returns the labels of
// those series. A value that no series has must be named in the metric's help: a counter of
// errors appears with the first error.
func assertExposed(t *testing.T, p *prometheus, s selector) map[string]bool {
	t.Helper()
	var series []map[string]string
	require.NoError(t, p.queryAPI(t.Context(), "series", url.Values{"match[]": {s.metric}}, &series))
	require.NotEmpty(t, series, "no server exposes %s", s.metric)
	var help map[string][]struct{ Help string }
	require.NoError(t, p.queryAPI(t.Context(), "metadata", url.Values{"metric": {s.metric}}, &help))
	known := map[string]bool{}
	values := map[string][]string{}
	for _, one := range series {
		for label, value := range one {
			known[label] = true
			values[label] = append(values[label], value)
		}
	}
	for _, m := range s.matchers {
		label, operator, value := m[0], m[1], m[2]
		assert.True(t, known[label], "%s has no label %s", s.metric, label)
		if strings.HasPrefix(operator, "!") {
			continue
		}
		wanted := []string{value}
		if operator == "=~" && !strings.Contains(value, "(") {
			wanted = strings.Split(value, "|")
		}
		for _, one := range wanted {
			expression, err := regexp.Compile("^(?:" + one + ")$")
			require.NoError(t, err)
			exposed := slices.ContainsFunc(values[label], expression.MatchString)
			documented := len(help[s.metric]) > 0 && regexp.MustCompile(`\b`+regexp.QuoteMeta(one)+`\b`).MatchString(help[s.metric][0].Help)
			assert.True(t, exposed || documented || one == "waypoint", "%s is never %s=%q", s.metric, label, one)
		}
	}
	return known
}

// assertInText checks a metric against the text of a metrics page.
func assertInText(t *testing.T, exposition string, s selector) {
	t.Helper()
	var labels string
	for line := range strings.Lines(exposition) {
		if strings.HasPrefix(line, s.metric+"{") && strings.Contains(line, "isthmus.dev") {
			labels = line
		}
	}
	require.NotEmpty(t, labels, "the API server counts in %s", s.metric)
	for _, m := range s.matchers {
		found := regexp.MustCompile(`\b` + m[0] + `="([^"]*)"`).FindStringSubmatch(labels)
		require.NotNil(t, found, "%s has no label %s", s.metric, m[0])
		matches, err := regexp.MatchString("^(?:"+m[2]+")$", found[1])
		require.NoError(t, err)
		assert.Equal(t, !strings.HasPrefix(m[1], "!"), matches, "%s=%q", m[0], found[1])
	}
}
