package inject_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"

	"github.com/isthmus-mesh/isthmus/webhook/inject"
	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

// TestStatusOfAnotherVersion shows which statuses an older or newer webhook accepts: during an
// upgrade and a rollback it reviews pods that the other one has injected.
func TestStatusOfAnotherVersion(t *testing.T) {
	for name, c := range map[string]struct {
		old, new string
		want     policy.Reason
		message  string
	}{
		"if it is our own, expect no conflict":            {want: policy.AlreadyInjected},
		"if it has a field more, expect no conflict":      {old: `"schema":1`, new: `"schema":1,"note":{"by":"a newer version"}`, want: policy.AlreadyInjected},
		"if it lists something else, expect no conflict":  {old: `"added":{`, new: `"added":{"hostAliases":["a"],`, want: policy.AlreadyInjected},
		"if it has another mode, expect no conflict":      {old: `secret"`, new: `pod-certificate"`, want: policy.AlreadyInjected},
		"if it has an unmarked mode, expect a conflict":   {old: `"mode":"secret"`, new: `"mode":"pod-certificate"`, want: policy.Conflict, message: `annotation isthmus.dev/status is not one that Isthmus wrote: mode "pod-certificate" is unknown`},
		"if its schema is higher, expect a conflict":      {old: `"schema":1`, new: `"schema":2`, want: policy.Conflict, message: "annotation isthmus.dev/status has schema 2; this version of Isthmus knows 1"},
		"if more follows it, expect a conflict":           {old: `"schema":1`, new: `"schema":1}{"schema":1`, want: policy.Conflict, message: "annotation isthmus.dev/status is not one that Isthmus wrote: invalid character '{' after top-level value"},
		"if certDir is relative, expect a conflict":       {old: `"schema":1`, new: `"schema":1,"certDir":"no/absolute/path"`, want: policy.Conflict, message: `annotation isthmus.dev/status is not one that Isthmus wrote: certDir is "no/absolute/path", which is no directory that an injection chooses`},
		"if certDir has a parent, expect a conflict":      {old: `"schema":1`, new: `"schema":1,"certDir":"/etc/../srv"`, want: policy.Conflict, message: `annotation isthmus.dev/status is not one that Isthmus wrote: certDir is "/etc/../srv", which is no directory that an injection chooses`},
		"if certDir ends with a slash, expect a conflict": {old: `"schema":1`, new: `"schema":1,"certDir":"/srv/"`, want: policy.Conflict, message: `annotation isthmus.dev/status is not one that Isthmus wrote: certDir is "/srv/", which is no directory that an injection chooses`},
		"if certDir is long, expect a conflict":           {old: `"schema":1`, new: `"schema":1,"certDir":"/` + strings.Repeat("x", 60<<10) + `"`, want: policy.Conflict, message: `annotation isthmus.dev/status is not one that Isthmus wrote: certDir is a value of 61441 bytes, which is no directory that an injection chooses`},
		"if it is long, expect a conflict":                {old: `"schema":1`, new: `"schema":1,"x":"` + strings.Repeat("x", 240<<10) + `"`, want: policy.Conflict, message: `annotation isthmus.dev/status is not one that Isthmus wrote: it holds 2`},
	} {
		t.Run(name, func(t *testing.T) {
			engine := newEngine(t, inject.Options{})
			pod := inMode(t, annotated(policy.ModeKey, "secret"), inject.Options{})
			status := pod.Annotations[policy.StatusKey]
			require.Contains(t, status, c.old)
			pod.Annotations[policy.StatusKey] = strings.ReplaceAll(status, c.old, c.new)
			if c.new == `pod-certificate"` {
				pod.Labels[policy.InjectedLabel] = "pod-certificate"
			}
			for _, asks := range []bool{false, true} {
				if asks {
					pod.Annotations[policy.InjectKey] = "true"
				}
				result := engine.Inject(inject.Request{Pod: pod, Namespace: labelled("edge")})
				assert.Equal(t, c.want, result.Reason, result.Message)
				assert.Empty(t, result.Patch)
				assert.Equal(t, asks && c.want == policy.Conflict, result.Denied)
				assert.True(t, strings.HasPrefix(result.Message, c.message), result.Message)
			}
		})
	}
}

// TestWarningsAreBounded shows that what is said does not grow with the input.
func TestWarningsAreBounded(t *testing.T) {
	result := func(keys ...string) inject.Result {
		pod := edge()
		pod.Annotations = map[string]string{policy.EnvoyKey: "true", policy.ModeKey: "sidecar"}
		pod.Spec.Containers[0].Image = "emissaryingress/emissary:3.9.1" // which is warned of
		for _, key := range keys {
			pod.Annotations[key] = ""
		}
		r := newEngine(t, inject.Options{}).Inject(inject.Request{Pod: pod, Namespace: labelled("edge")})
		require.Equal(t, policy.Injected, r.Reason, r.Message)
		return r
	}
	three := result("isthmus.dev/colour", "isthmus.dev/flavour", "isthmus.dev/shape")
	assert.Equal(t, []string{"files-not-reloaded", "unknown-key", "unknown-key", "unknown-key"}, codes(three))
	assert.Contains(t, string(three.EncodedPatch), `\"warnings\":[\"files-not-reloaded\",\"unknown-key\"]`)

	many := make([]string, 8000)
	for i := range many {
		many[i] = fmt.Sprintf("%sunknown-%d", policy.Domain, i)
	}
	all := result(many...)
	assert.Equal(t, "files-not-reloaded", all.Warnings[0].Code, "what matters comes first")
	length := 0
	for _, w := range all.Warnings {
		length += len([]rune(policy.WarningPrefix + w.Text))
	}
	assert.LessOrEqual(t, length, 4096)
	assert.Greater(t, length, 3500)
	last := all.Warnings[len(all.Warnings)-1]
	assert.Equal(t, "warnings-omitted", last.Code)
	assert.Equal(t, fmt.Sprintf("%d more warnings are left out, because Kubernetes keeps 4096 characters of all warnings", 8000-(len(all.Warnings)-2)), last.Text)
	assert.Len(t, all.EncodedPatch, len(three.EncodedPatch))
}

// TestLongTextIsNotRepeated shows that a message holds no more of a pod's text than it needs.
func TestLongTextIsNotRepeated(t *testing.T) {
	pod := edge()
	pod.Spec.Containers[0].Env = []corev1.EnvVar{{Name: "AMBASSADOR_ISTIO_SECRET_DIR", Value: strings.Repeat("x", 200<<10)}}
	result := newEngine(t, inject.Options{}).Inject(inject.Request{Pod: pod, Namespace: labelled("edge")})
	assert.Equal(t, policy.ManualIntegration, result.Reason)
	assert.LessOrEqual(t, len(result.Warnings[0].Text), 1024)
}
