package adopt_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/isthmus-mesh/isthmus/webhook/inject"
	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

func newEngine(t testing.TB, o inject.Options) *inject.Engine {
	t.Helper()
	engine, err := inject.New(o)
	require.NoError(t, err)
	return engine
}

func labelled(name string) policy.Namespace {
	return policy.Namespace{Name: name, Labels: map[string]string{policy.InjectionLabel: policy.InjectionEnabled}}
}
