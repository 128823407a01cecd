package policy

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestRestart(t *testing.T) {
	for name, c := range map[string]struct {
		workload, namespace string
		asks                bool
		problem             string
	}{
		"if nobody says anything, expect no":                              {},
		"if the workload asks, expect yes":                                {workload: "true", asks: true},
		"if the namespace asks, expect yes":                               {namespace: "true", asks: true},
		"if the workload alone declines, expect no":                       {workload: "false", namespace: "true"},
		"if the workload alone asks, expect yes":                          {workload: "true", namespace: "false", asks: true},
		"if the workload asks, expect no word of what its namespace says": {workload: "true", namespace: "maybe", asks: true},
		"if the workload's value is wrong, expect that the namespace's does not count": {
			workload: "yes", namespace: "true", problem: `annotation isthmus.dev/restart-when-stale: "yes" is not allowed; want "true" or "false"`,
		},
		"if the namespace's value is wrong, expect its name": {
			namespace: "True", problem: `annotation of namespace shop isthmus.dev/restart-when-stale: "True" is not allowed; want "true" or "false"`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			said := func(value string) map[string]string {
				if value == "" {
					return nil
				}
				return map[string]string{RestartKey: value}
			}
			asks, problem := Restart(said(c.workload), Namespace{Name: "shop", Annotations: said(c.namespace)})
			assert.Equal(t, c.asks, asks)
			assert.Equal(t, c.problem, problem)
		})
	}
}
