// Package restart tests that stale workloads are restarted one at a time: on a real API
// server with its controller manager, with the service account, the roles and the policy of
// the chart, and with pods that a webhook injects. There is no node: a fake kubelet marks
// pods as ready.
//
// KUBECONFIG names another cluster to use, which must be able to call this machine
// on 127.0.0.1.
package restart

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/go-logr/logr"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	ctrllog "sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/isthmus-mesh/isthmus/test/framework/controlplane"
)

// release is the namespace of the chart's release.
const release = "restart-isthmus"

var (
	// admin is the administrator's client configuration.
	admin *rest.Config
	// controllerConfig is the client configuration with a token of the chart's controller.
	controllerConfig *rest.Config
	kube             *kubernetes.Clientset
)

func TestMain(m *testing.M) {
	ctrllog.SetLogger(logr.Discard())
	os.Exit(run(m))
}

func run(m *testing.M) int {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	p, err := controlplane.Start(ctx, "--controller-manager")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() { _ = p.Stop() }()
	undo, err := installChart(ctx, p)
	defer undo()
	if err != nil {
		fmt.Fprintln(os.Stderr, "set up:", err)
		p.Dump(os.Stderr)
		return 1
	}
	go kubelet.run(ctx)
	return m.Run()
}

// installChart installs the chart. undo removes it again, also after an error.
func installChart(ctx context.Context, p *controlplane.Plane) (undo func(), err error) {
	undo = func() {}
	if admin, err = p.Admin(); err != nil {
		return undo, err
	}
	if kube, err = kubernetes.NewForConfig(admin); err != nil {
		return undo, err
	}
	runtimeClient, err := client.New(admin, client.Options{})
	if err != nil {
		return undo, err
	}
	list, err := chart(ctx)
	if err != nil {
		return undo, err
	}
	undo = func() {
		for _, o := range list {
			_ = runtimeClient.Delete(context.WithoutCancel(ctx), o)
		}
		_ = kube.CoreV1().Namespaces().Delete(context.WithoutCancel(ctx), release, metav1.DeleteOptions{})
	}
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: release}}
	if _, err := kube.CoreV1().Namespaces().Create(ctx, namespace, metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
		return undo, err
	}
	for _, o := range list {
		if err := runtimeClient.Create(ctx, o); err != nil {
			return undo, fmt.Errorf("create %s %s: %w", o.GetKind(), o.GetName(), err)
		}
	}
	controllerConfig, err = configFor(ctx, "isthmus-controller")
	return undo, err
}

// configFor returns a client configuration with a token of a service account of the release.
func configFor(ctx context.Context, name string) (*rest.Config, error) {
	seconds := int64(3600)
	token, err := kube.CoreV1().ServiceAccounts(release).CreateToken(ctx, name,
		&authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: &seconds}}, metav1.CreateOptions{})
	if err != nil {
		return nil, err
	}
	config := rest.AnonymousClientConfig(admin)
	config.BearerToken, config.QPS = token.Status.Token, -1
	return config, nil
}

// chart returns the objects of the chart, without the webhook configurations: the tests
// have their own.
func chart(ctx context.Context) ([]*unstructured.Unstructured, error) {
	helm, err := controlplane.Tool(ctx, "helm")
	if err != nil {
		return nil, err
	}
	command := exec.CommandContext(ctx, helm, "template", "restart", "../../../charts/isthmus", "--no-hooks", "--namespace", release,
		"--set", "istio.discovery=false", "--set", "controller.restartStale.enabled=true", "--kube-version", "1.36.0")
	command.Stderr = os.Stderr
	out, err := command.Output()
	if err != nil {
		return nil, err
	}
	var list []*unstructured.Unstructured
	for document := range bytes.SplitSeq(out, []byte("\n---\n")) {
		o := &unstructured.Unstructured{}
		if err := yaml.Unmarshal(document, &o.Object); err != nil {
			return nil, err
		}
		switch o.GetKind() {
		case "", "MutatingWebhookConfiguration", "ValidatingWebhookConfiguration":
		default:
			list = append(list, o)
		}
	}
	if len(list) < 10 {
		return nil, fmt.Errorf("the chart renders %d objects, want at least 10", len(list))
	}
	return list, nil
}

// waitTimeout is how long a condition may take on a busy machine, and pollInterval how
// often it is checked.
const (
	waitTimeout  = 2 * time.Minute
	pollInterval = 50 * time.Millisecond
)
