//go:build linux

package singlenode

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/isthmus-mesh/isthmus/test/tools/cluster/internal/apiserver"
)

// node is a cluster of one node, as seen inside its namespaces.
type node struct {
	Options
	controlPlane *apiserver.ControlPlane
}

//go:embed dns.yaml
var dnsManifest string

// Inside is the init process of the node's namespaces. It starts the cluster that the
// options in the data folder describe, writes its endpoint to out as one line when it
// is ready, and runs it until ctx ends or a component fails.
func Inside(ctx context.Context, folder string, out, progress io.Writer) error {
	o, err := readOptions(folder)
	if err != nil {
		return err
	}
	if err := o.setUpNamespaces(); err != nil {
		return err
	}
	go reap(ctx)
	n := &node{Options: o}
	startContext, cancel := context.WithTimeoutCause(ctx, o.Timeout, fmt.Errorf("gave up after %s", o.Timeout))
	defer cancel()
	if err := n.start(startContext, progress); err != nil {
		return err
	}
	if err := n.openSockets(ctx); err != nil {
		return err
	}
	if err := json.NewEncoder(out).Encode(n.controlPlane.Endpoint()); err != nil {
		return err
	}
	select {
	case <-ctx.Done():
		return nil
	case err := <-n.controlPlane.Failed():
		return err
	}
}

// start starts the components in the order of their dependencies.
func (n *node) start(ctx context.Context, progress io.Writer) error {
	started := time.Now()
	for _, step := range []struct {
		name string
		run  func(context.Context) error
	}{
		{"control plane", n.startControlPlane},
		{"scheduler", n.startScheduler},
		{"container runtime, with images", n.startRuntime},
		{"kubelet", n.startKubelet},
		{"kube-proxy", n.startProxy}, // waits for its Node
		{"DNS", n.startDNS},
	} {
		if err := step.run(ctx); err != nil {
			return fmt.Errorf("%s: %w", step.name, err)
		}
		_, _ = fmt.Fprintf(progress, "%5.1fs  %s\n", time.Since(started).Seconds(), step.name)
	}
	return nil
}

func (n *node) startControlPlane(ctx context.Context) (err error) {
	n.controlPlane, err = apiserver.Start(ctx, apiserver.Options{
		Folder:            n.path(controlPlaneFolder),
		Programs:          n.Programs,
		ControllerManager: true,
		Timeout:           n.Timeout,
		Address:           nodeAddress,
		Port:              n.Port,
		IsInit:            true,
	})
	return err
}

// startDNS applies the manifest of CoreDNS and waits for its Deployment.
func (n *node) startDNS(ctx context.Context) error {
	if err := n.kubectl(ctx, dnsManifest, "apply", "--server-side", "-f", "-"); err != nil {
		return err
	}
	return n.kubectl(ctx, "", "-n", "kube-system", "rollout", "status", "deployment/coredns", "--timeout=60s")
}

// nodeReady returns an error unless the Node is ready.
func (n *node) nodeReady(ctx context.Context) error {
	return n.kubectl(ctx, "", "wait", "--for=condition=Ready", "node/"+nodeName, "--timeout=2s")
}

// kubectl runs kubectl as the administrator.
func (n *node) kubectl(ctx context.Context, in string, arguments ...string) error {
	command := exec.CommandContext(ctx, n.Programs["kubectl"], arguments...)
	command.Env = append(os.Environ(), "KUBECONFIG="+n.controlPlane.Endpoint().Kubeconfig)
	command.Stdin = strings.NewReader(in)
	if out, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("kubectl %s: %w: %s", strings.Join(arguments, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}

// respondsOK returns a check that fails unless the URL answers with status 200.
func respondsOK(url string) func(context.Context) error {
	return func(ctx context.Context) error {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return err
		}
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			return err
		}
		defer func() { _ = response.Body.Close() }()
		if response.StatusCode != http.StatusOK {
			return errors.New(response.Status)
		}
		return nil
	}
}
