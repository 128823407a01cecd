//go:build soak

// Package kubelet asks Kubernetes' own kubelet, over a runtime that only
// pretends, what becomes of an edge beside the injected containers. It takes
// about a minute.
package kubelet

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/isthmus-mesh/isthmus/test/plane"
	"github.com/isthmus-mesh/isthmus/test/process"
)

const node = "hollow"

// The publisher's images: sound runs, absent cannot be pulled, stuck is pulled for
// ever, broken exits with status 1 at once, before the kubelet sees it run, and
// brittle after 3 s.
const (
	sound   = "registry.example/isthmus:sound"
	absent  = "registry.example/isthmus:absent"
	stuck   = "registry.example/isthmus:stuck"
	broken  = "registry.example/isthmus:broken"
	brittle = "registry.example/isthmus:brittle"
)

// The edge's images: of steady it runs, of crashing it exits after 10 s.
const (
	steady   = "docker.io/emissaryingress/emissary:steady"
	crashing = "docker.io/emissaryingress/emissary:crashing"
)

var (
	client *kubernetes.Clientset
	// asked is the file in which the runtime keeps what the kubelet asked for.
	asked string
	// release is the kubelet's version, as its Node has it.
	release string
)

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	stop, err := start(context.Background())
	defer stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	status := m.Run()
	if status != 0 {
		fmt.Fprintf(os.Stderr, "--- the kubelet:\n%s\n", plane.Tail(filepath.Join(filepath.Dir(asked), "log"), 15))
	}
	return status
}

// start brings a node up. What it returns takes everything down again, in any
// case.
func start(ctx context.Context) (stop func(), err error) {
	var undo []func()
	stop = func() {
		for i := len(undo) - 1; i >= 0; i-- {
			undo[i]()
		}
	}
	program, err := plane.Tool(ctx, "hollow-kubelet")
	if err != nil {
		return stop, err
	}
	p, err := plane.Start(ctx)
	if err != nil {
		return stop, err
	}
	undo = append(undo, func() { _ = p.Stop() })
	admin, err := p.Admin()
	if err != nil {
		return stop, err
	}
	if client, err = kubernetes.NewForConfig(admin); err != nil {
		return stop, err
	}
	folder, err := os.MkdirTemp("", "kubelet-")
	if err != nil {
		return stop, err
	}
	undo = append(undo, func() { _ = os.RemoveAll(folder) })
	asked = filepath.Join(folder, "asked")
	kubelet, err := process.Start(process.Options{
		Name: "the kubelet", Program: program, Log: filepath.Join(folder, "log"),
		Arguments: []string{
			"--kubeconfig", p.Kubeconfig, "--node", node, "--folder", folder, "--ledger", asked,
			"--refuse", absent, "--hang", stuck, "--exit", broken + "=0s", "--exit", brittle + "=3s", "--exit", crashing + "=10s",
		},
	})
	if err != nil {
		return stop, err
	}
	// In a cluster that was given, the pods go with the node.
	undo = append(undo,
		func() { _ = client.CoreV1().Nodes().Delete(context.WithoutCancel(ctx), node, metav1.DeleteOptions{}) },
		func() { kubelet.End(syscall.SIGTERM) },
	)
	limited, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	return stop, kubelet.Await(limited, isReady)
}

// isReady returns nil once the node is ready.
func isReady(ctx context.Context) error {
	n, err := client.CoreV1().Nodes().Get(ctx, node, metav1.GetOptions{})
	if err != nil {
		return err
	}
	for _, c := range n.Status.Conditions {
		if c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue {
			release = n.Status.NodeInfo.KubeletVersion
			return nil
		}
	}
	return errors.New("the node is not ready")
}
