package main

import (
	"bytes"
	"context"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func publisher(t *testing.T, args ...string) (status int, stdout, stderr string) {
	t.Helper()
	for _, name := range []string{"POD_NAMESPACE", "SERVICE_ACCOUNT", "POD_NAME", "KUBERNETES_SERVICE_HOST"} {
		t.Setenv(name, "")
	}
	var out, errs bytes.Buffer
	status = run(context.Background(), args, &out, &errs)
	return status, out.String(), errs.String()
}

func TestHelpAndVersion(t *testing.T) {
	status, out, errs := publisher(t, "--help")
	assert.Equal(t, exitOK, status)
	assert.Empty(t, errs)
	assert.Contains(t, out, "Examples:\n  # In an edge's pod")
	assert.Contains(t, out, "--roots-file string")

	status, out, errs = publisher(t, "--version")
	assert.Equal(t, exitOK, status)
	assert.Empty(t, errs)
	assert.True(t, strings.HasPrefix(out, "isthmus-publish "), out)
}

func TestCommandLine(t *testing.T) {
	required := func(more ...string) []string {
		return append([]string{"--dir=/certs", "--secret=istio-certs", "--trust-domain=cluster.local", "--namespace=edge", "--service-account=emissary"}, more...)
	}
	missing := filepath.Join(t.TempDir(), "missing")
	for name, test := range map[string]struct {
		args   []string
		status int
		err    string
	}{
		"if no flag is set, expect what is missing":                  {nil, exitUsage, "--dir is empty"},
		"if there is no namespace, expect the flag and the variable": {required("--namespace="), exitUsage, "--namespace (or POD_NAMESPACE) is empty"},
		"if there is no account, expect the flag and the variable":   {required("--service-account="), exitUsage, "--service-account (or SERVICE_ACCOUNT) is empty"},
		"if a flag is unknown, expect its name":                      {required("--direct=/x"), exitUsage, "unknown flag: --direct"},
		"if there is an argument, expect that":                       {required("/certs"), exitUsage, `unexpected argument "/certs": the command takes flags only`},
		"if the trust domain is invalid, expect why":                 {required("--trust-domain=UPPER"), exitUsage, `trust domain "UPPER": `},
		"if the interval is zero, expect that":                       {required("--check-every=0s"), exitUsage, "--check-every 0s: want a positive duration"},
		"if the level is unknown, expect those known":                {required("--log-level=trace"), exitUsage, `--log-level "trace": want info or debug`},
		"if it does not run in a pod, expect what to set":            {required(), exitError, "not running in a pod: set --kubeconfig to reach the API server"},
		"if the kubeconfig is missing, expect its path":              {required("--kubeconfig=" + missing), exitError, "stat " + missing + ": no such file or directory"},
	} {
		t.Run(name, func(t *testing.T) {
			status, out, errs := publisher(t, test.args...)
			assert.Equal(t, test.status, status)
			assert.Empty(t, out)
			assert.Contains(t, errs, "error: "+test.err)
		})
	}
}

// Linked packages cost memory before the process starts.
func TestHeavyPackagesAreNotLinked(t *testing.T) {
	out, err := exec.CommandContext(t.Context(), "go", "list", "-deps", ".").Output()
	require.NoError(t, err)
	packages := strings.Fields(string(out))
	require.Contains(t, packages, "github.com/isthmus-mesh/isthmus/internal/publish")
	for _, p := range packages {
		for _, heavy := range []string{
			"sigs.k8s.io/controller-runtime", "github.com/cert-manager", "github.com/prometheus", "k8s.io/client-go/kubernetes",
			"google.golang.org", "istio.io/api", "github.com/spf13/cobra", "github.com/isthmus-mesh/isthmus/patches",
		} {
			assert.False(t, p == heavy || strings.HasPrefix(p, heavy+"/"), p)
		}
	}
}
