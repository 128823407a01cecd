package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

const (
	release         = "isthmus"
	systemNamespace = "isthmus-system"
	configuration   = "isthmus-injector"
)

// The chart's Deployments and ServiceAccounts, in the order in which they start:
// the controller creates the CA that signs the webhook's certificate.
const (
	controllerName = "isthmus-controller"
	webhookName    = "isthmus-webhook"
)

// startDeployment runs a Deployment of the chart as a process on this machine, because
// the control plane has no node for the chart's pods.
func (d *demo) startDeployment(ctx context.Context, server, name string) (daemon, error) {
	var r daemon
	for _, port := range []*int{&r.Port, &r.Health, &r.Metrics} {
		free, err := freePort(ctx)
		if err != nil {
			return r, err
		}
		*port = free
	}
	arguments, err := d.deploymentArguments(ctx, name, r)
	if err != nil {
		return r, err
	}
	if err := d.writeKubeconfig(ctx, server, name); err != nil {
		return r, err
	}
	if name == webhookName {
		if err := d.redirectWebhooks(ctx, r.Port); err != nil {
			return r, err
		}
	}
	// It keeps running after this program exits.
	command := exec.CommandContext(context.WithoutCancel(ctx), d.path("bin", "isthmus"), arguments...)
	command.Dir, command.Env = d.folder, append(os.Environ(), "POD_NAMESPACE="+systemNamespace, "GOMEMLIMIT=128MiB")
	err = d.launchDaemon(ctx, name, &r, command, func() error {
		_, err := httpGet(ctx, fmt.Sprintf("http://127.0.0.1:%d/readyz?verbose", r.Health))
		return err
	})
	return r, err
}

// deploymentArguments returns the flags of the chart's Deployment, with the files, ports
// and kubeconfig that a process outside the cluster needs.
func (d *demo) deploymentArguments(ctx context.Context, name string, r daemon) ([]string, error) {
	out, err := d.run(ctx, "kubectl", "--namespace", systemNamespace, "get", "deployment", name,
		"--output", "jsonpath={.spec.template.spec.containers[0].args}")
	if err != nil {
		return nil, err
	}
	var arguments []string
	if err := json.Unmarshal(out, &arguments); err != nil {
		return nil, fmt.Errorf("flags of the chart's Deployment %s: %w in %q", name, err, out)
	}
	for i, argument := range arguments {
		argument = strings.ReplaceAll(argument, "$(POD_NAMESPACE)", systemNamespace)
		arguments[i] = strings.ReplaceAll(argument, "/etc/isthmus/", d.path("settings")+"/")
	}
	if err := d.writeSettings(ctx); err != nil {
		return nil, err
	}
	arguments = append(arguments,
		"--kubeconfig="+d.path(name+".kubeconfig"),
		fmt.Sprintf("--health-probe-bind-address=127.0.0.1:%d", r.Health),
		fmt.Sprintf("--metrics-bind-address=127.0.0.1:%d", r.Metrics),
		"--log-level=debug",
	)
	if name == webhookName {
		arguments = append(arguments, "--host=127.0.0.1", fmt.Sprintf("--port=%d", r.Port), "--serving-name=127.0.0.1", "--shutdown-delay=1s")
	}
	return arguments, nil
}

// writeSettings writes the chart's ConfigMap to files, as the kubelet does.
func (d *demo) writeSettings(ctx context.Context) error {
	out, err := d.run(ctx, "kubectl", "--namespace", systemNamespace, "get", "configmap", "isthmus-settings", "--output", "json")
	if err != nil {
		return err
	}
	var settings struct{ Data map[string]string }
	if err := json.Unmarshal(out, &settings); err != nil {
		return fmt.Errorf("ConfigMap isthmus-settings: %w", err)
	}
	if err := os.MkdirAll(d.path("settings"), 0o755); err != nil {
		return err
	}
	for name, content := range settings.Data {
		if err := os.WriteFile(d.path("settings", filepath.Base(name)), []byte(content), 0o600); err != nil {
			return err
		}
	}
	return nil
}

// writeKubeconfig writes a kubeconfig with a token of the chart's ServiceAccount: the
// process has the same permissions as in a cluster.
func (d *demo) writeKubeconfig(ctx context.Context, server, name string) error {
	token, err := d.run(ctx, "kubectl", "--namespace", systemNamespace, "create", "token", name, "--duration=720h")
	if err != nil {
		return err
	}
	authority, err := d.run(ctx, "kubectl", "--namespace", systemNamespace, "get", "configmap", "kube-root-ca.crt", "--output", `jsonpath={.data.ca\.crt}`)
	if err != nil {
		return err
	}
	config := map[string]any{
		"apiVersion": "v1", "kind": "Config", "current-context": "demo",
		"clusters": []any{map[string]any{"name": "demo", "cluster": map[string]any{
			"server": server, "certificate-authority-data": base64.StdEncoding.EncodeToString(authority),
		}}},
		"users":    []any{map[string]any{"name": name, "user": map[string]any{"token": string(bytes.TrimSpace(token))}}},
		"contexts": []any{map[string]any{"name": "demo", "context": map[string]any{"cluster": "demo", "user": name}}},
	}
	content, err := json.Marshal(config)
	if err != nil {
		return err
	}
	return os.WriteFile(d.path(name+".kubeconfig"), content, 0o600)
}

// redirectWebhooks changes the chart's webhook configurations to call this machine
// instead of the Service.
func (d *demo) redirectWebhooks(ctx context.Context, port int) error {
	for kind, paths := range map[string][]string{
		"mutatingwebhookconfiguration":   {"/inject/namespace", "/inject/pod"},
		"validatingwebhookconfiguration": {"/validate/workload", "/validate/workload", "/validate/namespace"},
	} {
		var patch []map[string]any
		for i, path := range paths {
			at := fmt.Sprintf("/webhooks/%d/clientConfig/", i)
			patch = append(patch,
				map[string]any{"op": "test", "path": at + "service/path", "value": path},
				map[string]any{"op": "remove", "path": at + "service"},
				map[string]any{"op": "add", "path": at + "url", "value": fmt.Sprintf("https://127.0.0.1:%d%s", port, path)})
		}
		content, err := json.Marshal(patch)
		if err != nil {
			return err
		}
		if _, err := d.run(ctx, "kubectl", "patch", kind, configuration, "--type=json", "--patch", string(content)); err != nil {
			return err
		}
	}
	return nil
}

func freePort(ctx context.Context) (int, error) {
	var config net.ListenConfig
	listener, err := config.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	return listener.Addr().(*net.TCPAddr).Port, listener.Close()
}

// httpGet returns the body of a page.
func httpGet(ctx context.Context, url string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return "", err
	}
	// A proxy in the environment must not be used for this machine.
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Do(request)
	if err != nil {
		return "", err
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return "", err
	}
	if response.StatusCode != http.StatusOK {
		return "", fmt.Errorf("%s: %s", response.Status, bytes.TrimSpace(body))
	}
	return string(body), nil
}
