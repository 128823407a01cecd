package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

const (
	release       = "isthmus"
	systemSpace   = "isthmus-system"
	configuration = "isthmus-injector"
)

// The chart's Deployments and ServiceAccounts, in the order in which they start:
// the controller makes the CA that the webhook's certificate is signed with.
const (
	controllerName = "isthmus-controller"
	webhookName    = "isthmus-webhook"
)

// running is a process of the chart's, as it is written down for demo-down.
type running struct {
	identity
	// Port serves the webhook's reviews, Health /readyz, Metrics /metrics; all on
	// 127.0.0.1.
	Port, Health, Metrics int
}

// process reads what runs under a name; the zero value when nothing does.
func (d *demo) process(name string) running {
	var r running
	if content, err := os.ReadFile(d.path(name + ".json")); err == nil {
		_ = json.Unmarshal(content, &r) // what cannot be read names no process
	}
	return r
}

// serve starts a Deployment that the chart installed as a process of this
// machine: the control plane has no node that could run the chart's pods.
func (d *demo) serve(ctx context.Context, server, name string) (running, error) {
	var r running
	for _, port := range []*int{&r.Port, &r.Health, &r.Metrics} {
		free, err := freePort(ctx)
		if err != nil {
			return r, err
		}
		*port = free
	}
	arguments, err := d.arguments(ctx, name, r)
	if err != nil {
		return r, err
	}
	if err := d.account(ctx, server, name); err != nil {
		return r, err
	}
	if name == webhookName {
		if err := d.redirect(ctx, r.Port); err != nil {
			return r, err
		}
	}
	log, err := os.Create(d.path(name + ".log"))
	if err != nil {
		return r, err
	}
	defer func() { _ = log.Close() }()
	// It outlives this program.
	command := exec.CommandContext(context.WithoutCancel(ctx), d.path("bin", "isthmus"), arguments...)
	command.Dir, command.Stdout, command.Stderr = d.folder, log, log
	command.Env = append(os.Environ(), "POD_NAMESPACE="+systemSpace, "GOMEMLIMIT=128MiB")
	command.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := command.Start(); err != nil {
		return r, err
	}
	ended := make(chan error, 1)
	go func() {
		err := command.Wait()
		if err == nil {
			err = errors.New("exit status 0")
		}
		ended <- err
	}()
	r.identity = identify(command.Process.Pid)
	content, err := json.Marshal(r)
	if err != nil {
		return r, err
	}
	if err := os.WriteFile(d.path(name+".json"), content, 0o600); err != nil {
		return r, errors.Join(err, r.end(time.Second))
	}
	return r, await(ctx, time.Minute, func() error {
		select {
		case err := <-ended:
			ended <- err
			return fmt.Errorf("%s ended: %w; its log ends with\n%s", name, err, d.lastLog(name))
		default:
		}
		_, err := get(ctx, fmt.Sprintf("http://127.0.0.1:%d/readyz?verbose", r.Health))
		return err
	})
}

// arguments are the flags of the chart's Deployment, with the files, ports and
// the kubeconfig that a process outside the cluster needs.
func (d *demo) arguments(ctx context.Context, name string, r running) ([]string, error) {
	out, err := d.output(ctx, "kubectl", "--namespace", systemSpace, "get", "deployment", name,
		"--output", "jsonpath={.spec.template.spec.containers[0].args}")
	if err != nil {
		return nil, err
	}
	var arguments []string
	if err := json.Unmarshal(out, &arguments); err != nil {
		return nil, fmt.Errorf("flags of the chart's Deployment %s: %w in %q", name, err, out)
	}
	for i, argument := range arguments {
		argument = strings.ReplaceAll(argument, "$(POD_NAMESPACE)", systemSpace)
		arguments[i] = strings.ReplaceAll(argument, "/etc/isthmus/", d.path("settings")+"/")
	}
	if err := d.settings(ctx); err != nil {
		return nil, err
	}
	arguments = append(arguments,
		"--kubeconfig="+d.path(name+".kubeconfig"),
		fmt.Sprintf("--health-probe-bind-address=127.0.0.1:%d", r.Health),
		fmt.Sprintf("--metrics-bind-address=127.0.0.1:%d", r.Metrics),
		"--log-level=debug",
	)
	if name == webhookName {
		arguments = append(arguments, "--host=127.0.0.1", fmt.Sprintf("--port=%d", r.Port), "--serving-name=127.0.0.1", "--shutdown-delay=0s")
	}
	return arguments, nil
}

// settings writes the chart's ConfigMap to files, as the kubelet would.
func (d *demo) settings(ctx context.Context) error {
	out, err := d.output(ctx, "kubectl", "--namespace", systemSpace, "get", "configmap", "isthmus-settings", "--output", "json")
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

// account writes a kubeconfig with a token of the chart's own ServiceAccount:
// the process may do here what it may do in a cluster, and no more.
func (d *demo) account(ctx context.Context, server, name string) error {
	token, err := d.output(ctx, "kubectl", "--namespace", systemSpace, "create", "token", name, "--duration=720h")
	if err != nil {
		return err
	}
	authority, err := d.output(ctx, "kubectl", "--namespace", systemSpace, "get", "configmap", "kube-root-ca.crt", "--output", `jsonpath={.data.ca\.crt}`)
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

// redirect points the chart's configuration at this machine instead of at the
// Service.
func (d *demo) redirect(ctx context.Context, port int) error {
	var patch []map[string]any
	for i, path := range []string{"/inject/namespace", "/inject/pod"} {
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
	_, err = d.output(ctx, "kubectl", "patch", "mutatingwebhookconfiguration", configuration, "--type=json", "--patch", string(content))
	return err
}

// lastLog is the end of a process's log.
func (d *demo) lastLog(name string) string {
	content, err := os.ReadFile(d.path(name + ".log"))
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(content)), "\n")
	return strings.Join(lines[max(0, len(lines)-10):], "\n")
}

func freePort(ctx context.Context) (int, error) {
	var config net.ListenConfig
	listener, err := config.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	return listener.Addr().(*net.TCPAddr).Port, listener.Close()
}

// get returns the body of a page of the webhook.
func get(ctx context.Context, url string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return "", err
	}
	// The environment's proxy is for the world outside.
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
