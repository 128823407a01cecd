package controller

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	corev1apply "k8s.io/client-go/applyconfigurations/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/isthmus-mesh/isthmus/test/framework/helmchart"
)

// The controller of these tests has the rights that the chart gives it, and the chart's
// policies restrict it.
const (
	releaseNamespace = "isthmus-system"
	controllerUser   = "system:serviceaccount:" + releaseNamespace + ":isthmus-controller"
)

// chartValues are the values of the chart for the settings of these tests.
func chartValues() (string, error) {
	values, err := json.Marshal(map[string]any{
		"secretNames": settings.SecretNames, "tlsContextNames": settings.TLSContextNames, "secretLabels": map[string]string{"edge": "blue"},
		"controller": map[string]any{"mirrorSecretNames": []string{"istio.edge"}},
		"istio":      map[string]any{"discovery": false},
	})
	return string(values), err
}

// rightsKinds are the kinds of the chart's objects that give and restrict rights.
var rightsKinds = []string{"ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding", "ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"}

// controllerAccount creates the chart's roles and policies, once, and returns the client
// configuration of the controller's account.
var controllerAccount = sync.OnceValues(func() (*rest.Config, error) {
	ctx := context.Background()
	administrator, err := client.New(admin, client.Options{})
	if err != nil {
		return nil, err
	}
	values, err := chartValues()
	if err != nil {
		return nil, err
	}
	objects, err := helmchart.Render(ctx, "isthmus", releaseNamespace, values)
	if err != nil {
		return nil, err
	}
	if err := administrator.Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: releaseNamespace}}); err != nil {
		return nil, err
	}
	for _, o := range objects {
		if !slices.Contains(rightsKinds, o.GetKind()) {
			continue
		}
		if err := administrator.Create(ctx, o); err != nil {
			return nil, fmt.Errorf("create %s %s: %w", o.GetKind(), o.GetName(), err)
		}
	}
	account := rest.CopyConfig(admin)
	account.Impersonate = rest.ImpersonationConfig{UserName: controllerUser, Groups: []string{"system:serviceaccounts", "system:authenticated"}}
	return account, awaitPolicy(ctx, account)
})

// awaitPolicy waits until the API server, which observes policies by a watch, denies what
// the policy for Secrets denies.
func awaitPolicy(ctx context.Context, account *rest.Config) error {
	kube, err := kubernetes.NewForConfig(account)
	if err != nil {
		return err
	}
	secret := corev1apply.Secret("istio-certs", "default")
	return wait.PollUntilContextTimeout(ctx, pollInterval, waitTimeout, true, func(ctx context.Context) (bool, error) {
		_, err := kube.CoreV1().Secrets("default").Apply(ctx, secret, metav1.ApplyOptions{FieldManager: "test", DryRun: []string{metav1.DryRunAll}})
		return err != nil && strings.Contains(err.Error(), "ValidatingAdmissionPolicy"), nil
	})
}
