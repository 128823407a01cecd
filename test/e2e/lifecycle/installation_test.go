//go:build e2e

package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"

	"github.com/isthmus-mesh/isthmus/test/framework/leftovers"
	"github.com/isthmus-mesh/isthmus/test/framework/node"
	"github.com/isthmus-mesh/isthmus/test/framework/traffic"
)

// installationState is what the tests have installed in the cluster.
type installationState struct {
	// before is the inventory of the cluster before the installation.
	before inventory
	istio  bool
	// edges carry requests from installStart, the installation of Isthmus, to the end.
	edges        *traffic.Traffic
	installStart time.Time
}

// inventory lists what the tests might leave behind in a cluster.
type inventory struct {
	isthmus, namespaces, customResources []string
}

// install installs Istio, if it is missing, and then Isthmus. Requests through edges fail
// until Isthmus is installed, and succeed after that. The caller must call uninstall, even
// after an error.
func install(ctx context.Context) (*installationState, error) {
	state := &installationState{}
	var err error
	if state.before, err = takeInventory(ctx); err != nil {
		return state, err
	}
	if i := slices.IndexFunc(state.before.isthmus, func(object string) bool { return strings.HasPrefix(object, "mutatingwebhookconfigurations ") }); i >= 0 {
		return state, fmt.Errorf("the cluster has an Isthmus (%s), and these tests upgrade and uninstall it: uninstall it first", state.before.isthmus[i])
	}
	state.istio = !slices.Contains(state.before.namespaces, node.IstioNamespace)
	if err := cluster.InstallIstio(ctx); err != nil {
		return state, err
	}
	if err := state.startTraffic(ctx); err != nil {
		return state, err
	}
	state.installStart = time.Now()
	if err := cluster.InstallIsthmus(ctx); err != nil {
		return state, err
	}
	err = state.optIn(ctx)
	return state, err
}

// uninstall removes what install has installed from a cluster that KUBECONFIG names. It
// returns an error that names what is left.
func (i *installationState) uninstall(ctx context.Context) error {
	if cluster.Ephemeral {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	var errs []error
	if !i.installStart.IsZero() {
		errs = append(errs, cluster.UninstallIsthmus(ctx))
	}
	if i.edges != nil {
		errs = append(errs, i.edges.Remove(ctx))
	}
	if i.istio {
		for _, release := range []string{"istiod", "istio-base"} {
			_, err := cluster.Helm(ctx, "uninstall", release, "--namespace", node.IstioNamespace, "--wait", "--timeout=5m")
			errs = append(errs, err)
		}
	}
	now, err := takeInventory(ctx)
	errs = append(errs, err)
	for _, kind := range added(i.before.customResources, now.customResources) {
		_, err := cluster.Kubectl(ctx, "", "delete", "customresourcedefinition", kind)
		errs = append(errs, err)
	}
	for _, namespace := range added(i.before.namespaces, now.namespaces) {
		_, err := cluster.Kubectl(ctx, "", "delete", "namespace", namespace, "--ignore-not-found", "--wait=false")
		errs = append(errs, err)
	}
	return errors.Join(append(errs, i.awaitNothing(ctx))...)
}

// awaitNothing waits until the inventory is the same as before the installation.
func (i *installationState) awaitNothing(ctx context.Context) error {
	var left []string
	err := wait.PollUntilContextCancel(ctx, time.Second, true, func(ctx context.Context) (bool, error) {
		now, err := takeInventory(ctx)
		if err != nil {
			return false, err
		}
		left = slices.Concat(added(i.before.isthmus, now.isthmus), added(i.before.namespaces, now.namespaces), added(i.before.customResources, now.customResources))
		return len(left) == 0, nil
	})
	if err != nil {
		return fmt.Errorf("left behind: %s: %w", strings.Join(left, ", "), err)
	}
	return nil
}

// takeInventory lists what the cluster holds.
func takeInventory(ctx context.Context) (inventory, error) {
	found, err := leftovers.List(ctx, cluster.Admin)
	if err != nil {
		return inventory{}, err
	}
	i := inventory{isthmus: found}
	namespaces, err := cluster.Client.CoreV1().Namespaces().List(ctx, metav1.ListOptions{})
	if err != nil {
		return i, err
	}
	for _, n := range namespaces.Items {
		i.namespaces = append(i.namespaces, n.Name)
	}
	customResources, err := cluster.Kubectl(ctx, "", "get", "customresourcedefinitions", "-o", "jsonpath={.items[*].metadata.name}")
	i.customResources = strings.Fields(customResources)
	return i, err
}

// added returns the names in now that are not in before.
func added(before, now []string) []string {
	return slices.DeleteFunc(slices.Clone(now), func(name string) bool { return slices.Contains(before, name) })
}
