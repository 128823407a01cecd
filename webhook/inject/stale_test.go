package inject_test

import (
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/isthmus-mesh/isthmus/webhook/inject"
	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

func TestStaleness(t *testing.T) {
	warnings := func(codes ...string) (list []policy.Warning) {
		for _, code := range codes {
			list = append(list, policy.Warning{Code: code, Text: "about " + code})
		}
		return list
	}
	for name, test := range map[string]struct {
		result inject.Result
		want   inject.Staleness
	}{
		"if the template is current, expect it not to be stale": {inject.Result{Reason: policy.AlreadyInjected, Template: "new"}, inject.Staleness{}},
		"if there are other warnings, expect it not to be stale": {
			inject.Result{Reason: policy.AlreadyInjected, Template: "new", Warnings: warnings("files-not-reloaded")}, inject.Staleness{},
		},
		"if the template is old, expect the current one": {
			inject.Result{Reason: policy.AlreadyInjected, Template: "new", Warnings: warnings("files-not-reloaded", inject.StaleTemplate)},
			inject.Staleness{Stale: true, Template: "new", Message: "about stale-template"},
		},
		"if it was changed by hand, expect no template": {
			inject.Result{Reason: policy.Conflict, Message: "volume istio-certs is not there"},
			inject.Staleness{Stale: true, Message: "volume istio-certs is not there"},
		},
	} {
		t.Run(name, func(t *testing.T) { assert.Equal(t, test.want, test.result.Staleness()) })
	}
}
