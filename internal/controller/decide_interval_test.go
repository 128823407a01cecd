package controller

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
)

func TestJitterIsAFractionToEitherSide(t *testing.T) {
	for random, want := range map[float64]time.Duration{0: 5 * time.Second, 0.5: 10 * time.Second, 0.75: 12500 * time.Millisecond, 1: 15 * time.Second} {
		assert.Equal(t, want, jitter(10*time.Second, 0.5, sequence(random)), random)
	}
	assert.Equal(t, 10*time.Second, jitter(10*time.Second, 0, sequence(1)))
}

func TestRetryAfter(t *testing.T) {
	for name, test := range map[string]struct {
		failures int
		limit    time.Duration
		random   float64
		want     time.Duration
	}{
		"if it is the first failure, expect a second":       {0, time.Hour, 0.5, time.Second},
		"if it is the second, expect twice that":            {1, time.Hour, 0.5, 2 * time.Second},
		"if it is the tenth, expect 512 times that":         {9, time.Hour, 0.5, 512 * time.Second},
		"if it is a later one, expect ten minutes":          {10, time.Hour, 0.5, 10 * time.Minute},
		"if there are very many, expect ten minutes":        {1000, time.Hour, 0.5, 10 * time.Minute},
		"if Secrets are few, expect no more than the limit": {10, 15 * time.Second, 0.5, 15 * time.Second},
		"if chance says so, expect half":                    {3, time.Hour, 0, 4 * time.Second},
		"if chance says so, expect half more":               {3, time.Hour, 1, 12 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			assert.Equal(t, test.want, retryAfter(test.failures, test.limit, sequence(test.random)))
		})
	}
}

func TestBackoffCountsTheFailuresOfEachNamespace(t *testing.T) {
	b := newBackoff(func() time.Duration { return time.Hour }, middle)
	one, other := reconcile.Request{}, reconcile.Request{}
	one.Name, other.Name = "one", "other"
	assert.Equal(t, time.Second, b.When(one))
	assert.Equal(t, 2*time.Second, b.When(one))
	assert.Equal(t, time.Second, b.When(other))
	assert.Equal(t, 4*time.Second, b.When(one))
	b.Forget(one)
	assert.Equal(t, time.Second, b.When(one))
}

func TestManySecretsAreCheckedLessOften(t *testing.T) {
	for secrets, want := range map[int]time.Duration{0: interval, 300: interval, 301: 30100 * time.Millisecond, 5000: 500 * time.Second} {
		assert.Equal(t, want, stretchInterval(interval, secrets), secrets)
	}
}
