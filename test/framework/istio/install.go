package istio

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	applycorev1 "k8s.io/client-go/applyconfigurations/core/v1"

	"github.com/isthmus-mesh/isthmus/test/framework/controlplane"
)

// Install creates what istiod needs: CRDs, its namespace and the mesh configuration,
// which contains istiod's address.
func (d *Discovery) Install(ctx context.Context) error {
	module, err := Module(ctx)
	if err != nil {
		return err
	}
	crds := filepath.Join(module, "manifests", "charts", "base", "files", "crd-all.gen.yaml")
	kubectl, err := controlplane.Tool(ctx, "kubectl")
	if err != nil {
		return err
	}
	out, err := exec.CommandContext(ctx, kubectl, "--kubeconfig", d.kubeconfig, "apply", "--server-side", "-f", crds).CombinedOutput()
	if err != nil {
		return fmt.Errorf("apply Istio's CRDs: %w: %s", err, out)
	}
	apply := metav1.ApplyOptions{FieldManager: "test", Force: true}
	if _, err := d.Client.CoreV1().Namespaces().Apply(ctx, applycorev1.Namespace(Namespace), apply); err != nil {
		return fmt.Errorf("create namespace %s: %w", Namespace, err)
	}
	settings := fmt.Sprintf("trustDomain: %s\ndefaultConfig:\n  discoveryAddress: %s\n", TrustDomain, d.Address)
	name := "istio"
	if d.Revision != "" {
		name += "-" + d.Revision
	}
	mesh := applycorev1.ConfigMap(name, Namespace).
		WithLabels(map[string]string{"istio.io/rev": d.revision()}).
		WithData(map[string]string{"mesh": settings})
	if _, err := d.Client.CoreV1().ConfigMaps(Namespace).Apply(ctx, mesh, apply); err != nil {
		return fmt.Errorf("write the mesh's configuration: %w", err)
	}
	return nil
}

// CreateNamespace creates a namespace with service accounts and waits until istiod has
// published its roots there.
func (i *Istiod) CreateNamespace(ctx context.Context, name string, labels map[string]string, serviceAccounts ...string) error {
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels}}
	if _, err := i.Client.CoreV1().Namespaces().Create(ctx, ns, metav1.CreateOptions{}); err != nil {
		return err
	}
	for _, account := range serviceAccounts {
		sa := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: account}}
		if _, err := i.Client.CoreV1().ServiceAccounts(name).Create(ctx, sa, metav1.CreateOptions{}); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	return i.process.AwaitReady(ctx, func(ctx context.Context) error {
		_, err := i.Roots(ctx, name)
		return err
	})
}

// Module returns the folder of Istio's module, with its CRDs and charts.
func Module(ctx context.Context) (string, error) {
	_, file, _, _ := runtime.Caller(0)
	folder := filepath.Join(filepath.Dir(file), "..", "..", "tools", "pilot")
	command := exec.CommandContext(ctx, "go", "-C", folder, "mod", "download", "-json", "istio.io/istio")
	command.Stderr = os.Stderr
	out, err := command.Output()
	if err != nil {
		return "", fmt.Errorf("find the module istio.io/istio: %w", err)
	}
	var found struct{ Dir string }
	if err := json.Unmarshal(out, &found); err != nil {
		return "", fmt.Errorf("find the module istio.io/istio: %w", err)
	}
	return found.Dir, nil
}
