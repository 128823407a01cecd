package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"sigs.k8s.io/yaml"
)

// chartFolder is the chart, relative to the repository.
const chartFolder = "charts/isthmus"

// suite holds the fields of a helm-unittest suite that say what to render.
type suite struct {
	Release struct{ Name, Namespace string } `json:"release"`
	Set     map[string]any                   `json:"set"`
	Tests   []struct {
		It           string                           `json:"it"`
		Set          map[string]any                   `json:"set"`
		Release      struct{ Name, Namespace string } `json:"release"`
		Capabilities struct {
			APIVersions []string `json:"apiVersions"`
		} `json:"capabilities"`
	} `json:"tests"`
}

// compareChart renders the chart with the values of every unit test of the base.
func compareChart(ctx context.Context, r *report, helm string, before, after tree) error {
	files, err := filepath.Glob(filepath.Join(before.folder, chartFolder, "tests", "*.yaml"))
	if err != nil {
		return err
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		var s suite
		if err := yaml.Unmarshal(data, &s); err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
		progress("%d renderings of %s", len(s.Tests), filepath.Base(file))
		for _, test := range s.Tests {
			args := []string{"template", "release-name", chartFolder, "--namespace", "isthmus-system"}
			for _, release := range []struct{ Name, Namespace string }{s.Release, test.Release} {
				if release.Name != "" {
					args[1] = release.Name
				}
				if release.Namespace != "" {
					args[4] = release.Namespace
				}
			}
			for _, version := range test.Capabilities.APIVersions {
				args = append(args, "--api-versions", version)
			}
			for _, set := range []map[string]any{s.Set, test.Set} {
				for key, value := range set {
					args = append(args, "--set-json", key+"="+quoteJSON(value))
				}
			}
			previous, errBefore := output(ctx, before.folder, helm, args...)
			current, errAfter := output(ctx, after.folder, helm, args...)
			name := filepath.Base(file) + ": " + test.It
			if (errBefore == nil) != (errAfter == nil) {
				r.add("chart", name, fmt.Sprintf("rendering gives %v, and gave %v", errAfter, errBefore))
				continue
			}
			r.add("chart", name, compareRenderings(previous, current))
		}
	}
	return nil
}

// compareRenderings compares all objects, in any order.
func compareRenderings(before, after string) string {
	a, err := parse(before)
	if err != nil {
		return err.Error()
	}
	b, err := parse(after)
	if err != nil {
		return err.Error()
	}
	for _, documents := range [][]any{a, b} {
		slices.SortFunc(documents, func(x, y any) int { return strings.Compare(nameOf(x), nameOf(y)) })
	}
	return difference("", a, b)
}

func nameOf(document any) string {
	object, _ := document.(map[string]any)
	metadata, _ := object["metadata"].(map[string]any)
	return fmt.Sprint(object["kind"], "/", metadata["namespace"], "/", metadata["name"])
}

func quoteJSON(value any) string {
	data, err := yaml.Marshal(value)
	if err == nil {
		data, err = yaml.YAMLToJSON(data)
	}
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(string(data))
}
