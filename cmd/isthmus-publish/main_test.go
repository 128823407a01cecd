package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

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
	for name, test := range map[string]struct {
		args   []string
		status int
		err    string
	}{
		"if no flag is set, expect what is missing":   {nil, exitUsage, "--dir is empty"},
		"if the namespace is empty, expect the flag":  {required("--namespace="), exitUsage, "--namespace is empty"},
		"if the account is empty, expect the flag":    {required("--service-account="), exitUsage, "--service-account is empty"},
		"if a flag is unknown, expect its name":       {required("--direct=/x"), exitUsage, "unknown flag: --direct"},
		"if there is an argument, expect that":        {required("/certs"), exitUsage, `unexpected argument "/certs": the command takes flags only`},
		"if the trust domain is invalid, expect why":  {required("--trust-domain=UPPER"), exitUsage, `--trust-domain "UPPER": `},
		"if the interval is zero, expect that":        {required("--check-every=0s"), exitUsage, "--check-every 0s: want a positive duration"},
		"if the level is unknown, expect those known": {required("--log-level=trace"), exitUsage, `--log-level "trace": want info or debug`},
	} {
		t.Run(name, func(t *testing.T) {
			status, out, errs := publisher(t, test.args...)
			assert.Equal(t, test.status, status)
			assert.Empty(t, out)
			assert.Contains(t, errs, "error: "+test.err)
		})
	}
}

// lines is a log that a test awaits the lines of.
type lines chan string

func (l lines) Write(line []byte) (int, error) {
	l <- string(line)
	return len(line), nil
}

// What is missing in the pod does not end the publisher: the edge would not be ready.
func TestPublisherStaysAndSaysWhatIsMissing(t *testing.T) {
	args := []string{"--dir=/certs", "--secret=istio-certs", "--trust-domain=cluster.local"}
	missing := filepath.Join(t.TempDir(), "missing")
	for name, test := range map[string]struct {
		args        []string
		environment map[string]string
		log         string
	}{
		"if there is no namespace, expect the variable": {args, map[string]string{"SERVICE_ACCOUNT": "emissary"}, "POD_NAMESPACE is empty"},
		"if there is no account, expect the variable":   {args, map[string]string{"POD_NAMESPACE": "edge"}, "SERVICE_ACCOUNT is empty"},
		"if the namespace is none, expect it":           {args, map[string]string{"POD_NAMESPACE": "a/b", "SERVICE_ACCOUNT": "emissary"}, "a/b"},
		"if it does not run in a pod, expect what to set": {
			args, map[string]string{"POD_NAMESPACE": "edge", "SERVICE_ACCOUNT": "emissary"}, "not running in a pod: set --kubeconfig to reach the API server",
		},
		"if the token cannot be read, expect its path": {
			args, map[string]string{"POD_NAMESPACE": "edge", "SERVICE_ACCOUNT": "emissary", "KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": "1"},
			"/var/run/secrets/kubernetes.io/serviceaccount/token",
		},
		"if the kubeconfig is missing, expect its path": {
			append(args, "--kubeconfig="+missing), map[string]string{"POD_NAMESPACE": "edge", "SERVICE_ACCOUNT": "emissary"}, "stat " + missing + ": no such file or directory",
		},
	} {
		t.Run(name, func(t *testing.T) {
			for _, variable := range []string{"POD_NAMESPACE", "SERVICE_ACCOUNT", "POD_NAME", "KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT"} {
				t.Setenv(variable, test.environment[variable])
			}
			log, ended := make(lines, 100), make(chan int)
			ctx, cancel := context.WithCancel(t.Context())
			go func() { ended <- run(ctx, test.args, io.Discard, log) }()
			line := <-log
			assert.Contains(t, line, "cannot publish; trying again")
			assert.Contains(t, line, test.log)
			assert.Contains(t, line, `"level":"WARN"`)
			cancel()
			assert.Equal(t, exitOK, <-ended)
		})
	}
}

func TestSuperviseTriesAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		var attempts []time.Time
		ctx, cancel := context.WithCancel(t.Context())
		supervise(ctx, slog.New(slog.NewJSONHandler(&log, nil)), func(ctx context.Context) error {
			attempts = append(attempts, time.Now())
			switch len(attempts) {
			case 1, 2:
				return errors.New("no token")
			case 3:
				panic("a fault")
			case 4:
				return nil // it ended although nobody asked for it
			case 5:
				time.Sleep(time.Hour) // of the bubble's clock: it runs well for an hour
				return errors.New("no token")
			case 40:
				cancel()
				<-ctx.Done()
			}
			return errors.New("no token")
		})
		require.Len(t, attempts, 40)
		for i := 1; i < len(attempts); i++ {
			if i != 5 {
				assert.LessOrEqual(t, attempts[i].Sub(attempts[i-1]), maxBackoff)
			}
		}
		assert.Less(t, attempts[5].Sub(attempts[4]), time.Hour+minBackoff, "what was well for an hour is tried soon")
		assert.Equal(t, 2, strings.Count(log.String(), "no token"), "once as long as it lasts: %s", &log)
		assert.Contains(t, log.String(), "panic: a fault")
		assert.Contains(t, log.String(), errEnded.Error())
		assert.Contains(t, log.String(), "stopped")
	})
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
