package controller

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/isthmus-mesh/isthmus/internal/publish"
	"github.com/isthmus-mesh/isthmus/webhook/policy"
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
		lifeLeft time.Duration
	}{
		"if it is the first failure, expect a second":                        {0, time.Hour, 0.5, time.Second, 0},
		"if it is the second, expect twice that":                             {1, time.Hour, 0.5, 2 * time.Second, 0},
		"if it is the tenth, expect 512 times that":                          {9, time.Hour, 0.5, 512 * time.Second, 0},
		"if it is a later one, expect ten minutes":                           {10, time.Hour, 0.5, 10 * time.Minute, 0},
		"if there are very many, expect ten minutes":                         {1000, time.Hour, 0.5, 10 * time.Minute, 0},
		"if Secrets are few, expect no more than the limit":                  {10, 15 * time.Second, 0.5, 15 * time.Second, 0},
		"if chance says so, expect half":                                     {3, time.Hour, 0, 4 * time.Second, 0},
		"if the certificate has five minutes left, expect a third of that":   {10, time.Hour, 1, 100 * time.Second, 5 * time.Minute},
		"if it has longer, expect the wait":                                  {10, time.Hour, 0.5, 10 * time.Minute, time.Hour},
		"if the limit is above a third, expect a third":                      {10, 15 * time.Second, 1, 10 * time.Second, 30 * time.Second},
		"if it has a moment, expect no busy loop":                            {10, time.Hour, 1, shortestRetry, 200 * time.Millisecond},
		"if it has less than the shortest wait, expect no try after its end": {10, time.Hour, 1, time.Millisecond, time.Millisecond},
		"if chance says so, expect half more":                                {3, time.Hour, 1, 12 * time.Second, 0},
	} {
		t.Run(name, func(t *testing.T) {
			assert.Equal(t, test.want, retryAfter(test.failures, test.limit, test.lifeLeft, sequence(test.random)))
		})
	}
}

func TestBackoffCountsTheFailuresOfEachNamespace(t *testing.T) {
	left := map[string]time.Duration{"short": 3 * time.Second}
	b := newBackoff(func() time.Duration { return time.Hour }, func(namespace string) time.Duration { return left[namespace] }, middle)
	one, other := reconcile.Request{}, reconcile.Request{}
	one.Name, other.Name = "one", "other"
	assert.Equal(t, time.Second, b.When(one))
	assert.Equal(t, 2*time.Second, b.When(one))
	assert.Equal(t, time.Second, b.When(other))
	assert.Equal(t, 4*time.Second, b.When(one))
	short := reconcile.Request{}
	short.Name = "short"
	for range 5 {
		assert.Equal(t, time.Second, b.When(short), "a third of what is left of its life")
	}
	b.Forget(one)
	assert.Equal(t, time.Second, b.When(one))
}

// A source that never issues is asked at most 70 times in an hour, by any chance.
func TestPendingSourceIsAskedLessAndLessOften(t *testing.T) {
	assert.Equal(t, pendingRetry, pendingWait(0, 0, sequence(0)))
	assert.Equal(t, 2*pendingRetry, pendingWait(1, 0, sequence(0)))
	assert.Equal(t, maxPendingRetry, pendingWait(100, 0, sequence(0)))
	assert.Equal(t, 10*time.Second, pendingWait(100, 30*time.Second, sequence(0)), "a third of what is left of the life")
	asks := 0
	for elapsed := time.Duration(0); elapsed < time.Hour; elapsed += pendingWait(asks-1, 0, sequence(1)) {
		asks++
	}
	assert.LessOrEqual(t, asks, 70)
}

func TestNewLeavesAreSpreadAfterRootsChanged(t *testing.T) {
	for secrets, want := range map[int]time.Duration{0: 10 * time.Minute, 7200: 10 * time.Minute, 12000: 1000 * time.Second, 50400: 70 * time.Minute} {
		assert.Equal(t, want, spreadLeaves(secrets), secrets)
	}
}

func TestDueTime(t *testing.T) {
	ca := newAuthority(t)
	b := ca.bundle(t, "emissary", noon, noon.Add(24*time.Hour))
	at := func(renew time.Duration) publish.Observation {
		return publish.Observation{State: publish.Good, Bundle: b, RenewAfter: noon.Add(renew), LatestRenewal: noon.Add(16 * time.Hour)}
	}
	for name, test := range map[string]struct {
		source policy.Source
		renew  time.Duration
		random float64
		want   time.Duration
	}{
		"if it is renewed at a third, expect that":                                     {policy.IstioCA, 8 * time.Hour, 0, 8 * time.Hour},
		"if chance says so, expect a tenth of the rest later":                          {policy.IstioCA, 8 * time.Hour, 1, 8*time.Hour + 96*time.Minute},
		"if the renewal was brought forward, expect that time":                         {policy.IstioCA, 2 * time.Hour, 1, 2 * time.Hour},
		"if publishers renew it, expect two thirds of its life":                        {policy.Agent, 8 * time.Hour, 0, 16 * time.Hour},
		"if publishers renew it and chance says so, expect a tenth of their time less": {policy.Agent, 8 * time.Hour, 1, 16*time.Hour - 48*time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			assert.Equal(t, noon.Add(test.want), dueTime(test.source, at(test.renew), sequence(test.random)))
		})
	}
}

func TestManySecretsAreCheckedLessOften(t *testing.T) {
	for secrets, want := range map[int]time.Duration{0: interval, 300: interval, 301: 30100 * time.Millisecond, 5000: 500 * time.Second} {
		assert.Equal(t, want, stretchInterval(interval, secrets), secrets)
	}
	for namespaces, want := range map[int]time.Duration{6000: DefaultScanInterval, 20000: 2000 * time.Second} {
		assert.Equal(t, want, stretchInterval(DefaultScanInterval, namespaces), namespaces)
	}
}
