package policy

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestWantsRestart(t *testing.T) {
	for name, c := range map[string]struct {
		workload, namespace string
		wants               bool
		problem             string
	}{
		"if nothing is set, expect no":                             {},
		"if the workload asks, expect yes":                         {workload: "true", wants: true},
		"if the namespace asks, expect yes":                        {namespace: "true", wants: true},
		"if the workload declines, expect no":                      {workload: "false", namespace: "true"},
		"if the workload asks and the namespace not, expect yes":   {workload: "true", namespace: "false", wants: true},
		"if the workload asks, expect no problem of the namespace": {workload: "true", namespace: "maybe", wants: true},
		"if the workload's value is invalid, expect that the namespace's does not count": {
			workload: "yes", namespace: "true", problem: `annotation isthmus.dev/restart-when-stale: "yes" is not allowed; want "true" or "false"`,
		},
		"if the namespace's value is invalid, expect the namespace's name": {
			namespace: "True", problem: `namespace shop: annotation isthmus.dev/restart-when-stale: "True" is not allowed; want "true" or "false"`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			annotations := func(value string) map[string]string {
				if value == "" {
					return nil
				}
				return map[string]string{RestartKey: value}
			}
			wants, problem := WantsRestart(annotations(c.workload), Namespace{Name: "shop", Annotations: annotations(c.namespace)})
			assert.Equal(t, c.wants, wants)
			assert.Equal(t, c.problem, problem)
		})
	}
}
