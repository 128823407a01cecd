package prometheus

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// dashboard is a Grafana dashboard, as far as the tests read it.
type dashboard struct {
	UID        string  `json:"uid"`
	Title      string  `json:"title"`
	Panels     []panel `json:"panels"`
	Templating struct {
		List []struct {
			Name       string `json:"name"`
			Definition string `json:"definition"`
		} `json:"list"`
	} `json:"templating"`
}

type panel struct {
	ID           int          `json:"id"`
	Type         string       `json:"type"`
	Title        string       `json:"title"`
	Description  string       `json:"description"`
	GridPosition gridPosition `json:"gridPos"`
	Targets      []target     `json:"targets"`
}

type target struct {
	Source struct {
		Type string `json:"type"`
		UID  string `json:"uid"`
	} `json:"datasource"`
	Expr string `json:"expr"`
}

type gridPosition struct{ X, Y, W, H int }

func (p gridPosition) overlaps(o gridPosition) bool {
	return p.X < o.X+o.W && o.X < p.X+p.W && p.Y < o.Y+o.H && o.Y < p.Y+p.H
}

// dashboards returns the dashboards that the chart renders, by file name.
func dashboards(t *testing.T) map[string]dashboard {
	t.Helper()
	found := map[string]dashboard{}
	for _, object := range render(t, "integrations: {grafana: {enabled: true}}") {
		if object.GetLabels()["grafana_dashboard"] != "1" {
			continue
		}
		name := strings.TrimPrefix(object.GetName(), "isthmus-dashboard-") + ".json"
		var d dashboard
		require.NoError(t, json.Unmarshal([]byte(text(t, object, name)), &d), name)
		found[name] = d
	}
	require.Len(t, found, 2)
	return found
}

// expressions returns the expressions of all panels, with values in place of Grafana's
// variables, by dashboard and panel.
func expressions(t *testing.T) map[string]string {
	t.Helper()
	set := strings.NewReplacer("$__rate_interval", "2m", "($namespace)", "(.*)", "$namespace", ".*")
	found := map[string]string{}
	for name, d := range dashboards(t) {
		for _, p := range d.Panels {
			for i, target := range p.Targets {
				found[fmt.Sprintf("%s: %s (%d)", name, p.Title, i)] = set.Replace(target.Expr)
			}
		}
	}
	return found
}

// The chart renders every file of the folder as it is: no part of a dashboard is a Helm
// template.
func TestDashboardsAreTheChartsFiles(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(chart, "dashboards", "*.json"))
	require.NoError(t, err)
	require.Len(t, files, 2)
	list := render(t, "integrations: {grafana: {enabled: true}}")
	for _, file := range files {
		content, err := os.ReadFile(file)
		require.NoError(t, err)
		name := filepath.Base(file)
		config := find(t, list, "ConfigMap", "isthmus-dashboard-"+strings.TrimSuffix(name, ".json"))
		assert.Equal(t, strings.TrimSpace(string(content)), strings.TrimSpace(text(t, config, name)))
	}
}

// This version of promtool parses expressions in rules only, so each expression becomes a
// rule.
func TestPanelExpressionsAreValid(t *testing.T) {
	for name, expression := range expressions(t) {
		t.Run(name, func(t *testing.T) {
			require.NotContains(t, expression, "$", "an unknown variable")
			rules, err := json.Marshal(map[string]any{"groups": []any{map[string]any{
				"name": "panel", "rules": []any{map[string]any{"record": "panel", "expr": expression}},
			}}})
			require.NoError(t, err)
			file := filepath.Join(t.TempDir(), "rules.yml")
			require.NoError(t, os.WriteFile(file, rules, 0o600))
			_, err = run(t.Context(), "", promtool, "check", "rules", file)
			assert.NoError(t, err)
		})
	}
}

func TestDashboardsHaveUniqueIDsAndPanelsDoNotOverlap(t *testing.T) {
	uids := map[string]bool{}
	for name, d := range dashboards(t) {
		t.Run(name, func(t *testing.T) {
			assert.False(t, uids[d.UID], "uid %s is used twice", d.UID)
			uids[d.UID] = true
			ids, titles := map[int]bool{}, map[string]bool{}
			for i, p := range d.Panels {
				assert.False(t, ids[p.ID], "id %d twice", p.ID)
				assert.False(t, titles[p.Title], "%s twice", p.Title)
				ids[p.ID], titles[p.Title] = true, true
				assert.LessOrEqual(t, p.GridPosition.X+p.GridPosition.W, 24, p.Title)
				for _, other := range d.Panels[:i] {
					assert.False(t, p.GridPosition.overlaps(other.GridPosition), "%s overlaps %s", p.Title, other.Title)
				}
				if p.Type == "row" {
					continue
				}
				assert.NotEmpty(t, p.Description, p.Title)
				assert.NotEmpty(t, p.Targets, p.Title)
				for _, target := range p.Targets {
					assert.Equal(t, "prometheus", target.Source.Type, p.Title)
					assert.Equal(t, "${datasource}", target.Source.UID, "%s queries the chosen data source", p.Title)
				}
			}
		})
	}
}
