package rbac

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	jsonpatch "github.com/evanphx/json-patch/v5"
	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/config"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/isthmus-mesh/isthmus/internal/certs"
	"github.com/isthmus-mesh/isthmus/internal/controller"
	"github.com/isthmus-mesh/isthmus/internal/events"
	"github.com/isthmus-mesh/isthmus/internal/publish"
	"github.com/isthmus-mesh/isthmus/patches"
	"github.com/isthmus-mesh/isthmus/test/framework/certtest"
	"github.com/isthmus-mesh/isthmus/webhook/inject"
	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

// meshCA is a source that requests a token as istio-ca does, and signs by itself. It also
// provides the roots.
type meshCA struct {
	t    *testing.T
	kube kubernetes.Interface
	root *certtest.Pair
}

// Bundle implements controller.Source.
func (m *meshCA) Bundle(ctx context.Context, r certs.Request) (*certs.Bundle, error) {
	_, err := m.kube.CoreV1().ServiceAccounts(r.Namespace).CreateToken(ctx, r.ServiceAccount, &authenticationv1.TokenRequest{
		Spec: authenticationv1.TokenRequestSpec{Audiences: []string{"istio-ca"}, ExpirationSeconds: ptr.To[int64](600)},
	}, metav1.CreateOptions{})
	if err != nil {
		return nil, err
	}
	now := time.Now()
	leaf := m.root.Leaf(m.t, certtest.URIs(r.Want.ID.URL()), certtest.Validity(now.Add(-time.Minute), now.Add(time.Hour)))
	return certs.New(certs.Material{Key: leaf.KeyPEM, Chain: leaf.ChainPEM}, r.Want)
}

// Roots implements controller.Roots.
func (m *meshCA) Roots() ([]*x509.Certificate, error) {
	return []*x509.Certificate{m.root.Certificate}, nil
}

// OnChange implements controller.Roots.
func (m *meshCA) OnChange(func()) {}

// refusals records the requests that the API server forbids.
type refusals struct {
	mu   sync.Mutex
	list []string
}

func (r *refusals) wrap(next http.RoundTripper) http.RoundTripper {
	return roundTripper(func(request *http.Request) (*http.Response, error) {
		response, err := next.RoundTrip(request)
		if err == nil && response.StatusCode == http.StatusForbidden {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.list = append(r.list, request.Method+" "+request.URL.String())
		}
		return response, err
	})
}

func (r *refusals) all() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.list
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// startController runs the controller with the token of its service account until the test
// ends. Only the watches notice anything within the test. It returns what was forbidden.
func (c *cluster) startController(settings inject.Settings) (engine *inject.Engine, forbidden *refusals) {
	c.t.Helper()
	t := c.t
	token, err := c.admin.CoreV1().ServiceAccounts(releaseNamespace).CreateToken(t.Context(), controllerName,
		&authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: ptr.To[int64](3600)}}, metav1.CreateOptions{})
	require.NoError(t, err)
	forbidden = &refusals{}
	account := rest.AnonymousClientConfig(admin)
	account.BearerToken = token.Status.Token
	account.Wrap(forbidden.wrap)
	cached, err := controller.CacheOptions(settings.ControllerNamespaces...)
	require.NoError(t, err)
	mgr, err := manager.New(account, manager.Options{
		Cache: cached, Metrics: metricsserver.Options{BindAddress: "0"}, Controller: config.Controller{SkipNameValidation: ptr.To(true)}, Logger: logr.Discard(),
	})
	require.NoError(t, err)
	kube, err := kubernetes.NewForConfig(account)
	require.NoError(t, err)
	secrets, err := publish.NewClient(account)
	require.NoError(t, err)
	dynamicClient, err := dynamic.NewForConfig(account)
	require.NoError(t, err)
	recorder := events.NewRecorder(func(ctx context.Context, event *eventsv1.Event) error { return mgr.GetClient().Create(ctx, event) }, controller.Name, logr.Discard())
	require.NoError(t, mgr.Add(recorder))
	engine, err = inject.New(inject.Options{Settings: settings})
	require.NoError(t, err)
	ca, mesh := &meshCA{t: t, kube: kube, root: certtest.NewAuthority(t)}, patches.Mesh{}.WithDefaults()
	require.NoError(t, controller.Add(mgr, controller.Options{
		Settings: settings, Engine: engine, Mesh: func(string) (patches.Mesh, error) { return mesh, nil }, Roots: ca, Secrets: secrets, Dynamic: dynamicClient,
		Sources: map[policy.Source]controller.Source{policy.IstioCA: ca}, Events: recorder, Ready: func() error { return nil },
		Registerer: prometheus.NewRegistry(), ScanInterval: time.Hour, CheckInterval: time.Hour,
	}))
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- mgr.Start(ctx) }()
	t.Cleanup(func() {
		cancel()
		require.NoError(t, <-ended)
	})
	return engine, forbidden
}

// createEdge creates an injected edge pod with a publisher.
func (c *cluster) createEdge(engine *inject.Engine, namespace string) {
	c.t.Helper()
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "front"},
		Spec: corev1.PodSpec{
			ServiceAccountName: "edge", AutomountServiceAccountToken: ptr.To(false),
			Containers: []corev1.Container{{Name: "ambassador", Image: "docker.io/emissaryingress/emissary:3.9.1"}},
		},
	}
	result := engine.Inject(inject.Request{Pod: pod, Namespace: policy.Namespace{Name: namespace, Labels: map[string]string{policy.InjectionLabel: policy.InjectionEnabled}}})
	require.Equal(c.t, policy.Injected, result.Reason, result.Message)
	patch, err := jsonpatch.DecodePatch(result.EncodedPatch)
	require.NoError(c.t, err)
	document, err := json.Marshal(pod)
	require.NoError(c.t, err)
	document, err = patch.Apply(document)
	require.NoError(c.t, err)
	injected := &corev1.Pod{}
	require.NoError(c.t, json.Unmarshal(document, injected))
	_, err = c.admin.CoreV1().Pods(namespace).Create(c.t.Context(), injected, metav1.CreateOptions{})
	require.NoError(c.t, err)
	c.t.Cleanup(func() {
		ctx := context.WithoutCancel(c.t.Context())
		_ = c.admin.CoreV1().Pods(namespace).Delete(ctx, "front", metav1.DeleteOptions{GracePeriodSeconds: ptr.To[int64](0)})
		_ = c.admin.CoreV1().Secrets(namespace).Delete(ctx, "istio-certs", metav1.DeleteOptions{})
	})
}

// awaitSecret waits for a Secret istio-certs with another UID than before.
func (c *cluster) awaitSecret(namespace string, before *corev1.Secret) *corev1.Secret {
	c.t.Helper()
	var found *corev1.Secret
	require.EventuallyWithT(c.t, func(collect *assert.CollectT) {
		secret, err := c.admin.CoreV1().Secrets(namespace).Get(c.t.Context(), "istio-certs", metav1.GetOptions{})
		if !assert.NoError(collect, err) {
			return
		}
		assert.True(collect, before == nil || before.UID != secret.UID)
		found = secret
	}, 30*time.Second, 20*time.Millisecond)
	return found
}

// TestControllerNeedsNoOtherRights runs the controller with exactly the rights of the chart,
// in all namespaces and limited to two. It keeps, repairs and removes Secrets, and nothing
// that it requests is forbidden.
func TestControllerNeedsNoOtherRights(t *testing.T) {
	const front, shop, other = "rbac-front", "rbac-shop", "rbac-other"
	for name, limits := range map[string][]string{"every namespace": nil, "two namespaces": {front, shop}} {
		t.Run(name, func(t *testing.T) {
			kube, err := kubernetes.NewForConfig(admin)
			require.NoError(t, err)
			c := &cluster{t: t, admin: kube}
			enabled := map[string]string{policy.InjectionLabel: policy.InjectionEnabled}
			for _, namespace := range []string{front, shop, other} {
				c.namespace(namespace, enabled)
				c.label(namespace, policy.InjectionEnabled)
			}
			values, err := json.Marshal(map[string]any{
				"controller": map[string]any{"namespaces": append([]string{}, limits...)},
				"webhook":    map[string]any{"failurePolicy": "Ignore"}, // no webhook runs
			})
			require.NoError(t, err)
			c = install(t, string(values))
			engine, forbidden := c.startController(inject.Settings{ControllerNamespaces: limits})
			served := []string{front, shop, other}
			if limits != nil {
				served = limits
			}
			c.createEdge(engine, other)
			for _, namespace := range []string{front, shop} {
				c.createEdge(engine, namespace)
			}
			for _, namespace := range served {
				first := c.awaitSecret(namespace, nil)
				require.NoError(t, c.admin.CoreV1().Secrets(namespace).Delete(t.Context(), "istio-certs", metav1.DeleteOptions{}))
				c.awaitSecret(namespace, first)
				c.awaitEvent(namespace, controller.EventPublished)
			}
			if limits != nil {
				_, err := c.admin.CoreV1().Secrets(other).Get(t.Context(), "istio-certs", metav1.GetOptions{})
				assert.True(t, apierrors.IsNotFound(err), "no Secret in the namespace that is left out: %v", err)
				stolen := c.clientFor(releaseNamespace, controllerName)
				_, err = stolen.CoreV1().Secrets(other).Get(t.Context(), "istio-certs", metav1.GetOptions{})
				assert.NoError(t, checkForbidden(err))
				_, err = requestToken(t.Context(), stolen, other, ptr.To[int64](600), "istio-ca")
				assert.NoError(t, checkForbidden(err))
				_, err = stolen.CoreV1().Pods(other).List(t.Context(), metav1.ListOptions{})
				assert.NoError(t, checkForbidden(err))
			}
			c.label(front, "")
			require.NoError(t, c.admin.CoreV1().Pods(front).Delete(t.Context(), "front", metav1.DeleteOptions{GracePeriodSeconds: ptr.To[int64](0)}))
			require.Eventually(t, func() bool {
				_, err := c.admin.CoreV1().Secrets(front).Get(t.Context(), "istio-certs", metav1.GetOptions{})
				return apierrors.IsNotFound(err)
			}, 30*time.Second, 20*time.Millisecond, "the Secret of a namespace that opted out")
			assert.Empty(t, forbidden.all())
		})
	}
}

// label sets the label isthmus.dev/injection of a namespace. Empty removes it.
func (c *cluster) label(namespace, value string) {
	c.t.Helper()
	text := fmt.Sprintf(`{"metadata":{"labels":{%q:%q}}}`, policy.InjectionLabel, value)
	if value == "" {
		text = fmt.Sprintf(`{"metadata":{"labels":{%q:null}}}`, policy.InjectionLabel)
	}
	_, err := c.admin.CoreV1().Namespaces().Patch(c.t.Context(), namespace, "application/merge-patch+json", []byte(text), metav1.PatchOptions{})
	require.NoError(c.t, err)
}

// awaitEvent waits for an Event with this reason.
func (c *cluster) awaitEvent(namespace, reason string) {
	c.t.Helper()
	require.Eventually(c.t, func() bool {
		list, err := c.admin.EventsV1().Events(namespace).List(c.t.Context(), metav1.ListOptions{})
		if err != nil {
			return false
		}
		for _, event := range list.Items {
			if event.Reason == reason {
				return true
			}
		}
		return false
	}, 30*time.Second, 20*time.Millisecond, "event %s in namespace %s", reason, namespace)
}

// TestLimitedRolesGrantTheSame compares the roles with and without controller.namespaces:
// what is granted in the two namespaces is what is granted in all of them otherwise.
func TestLimitedRolesGrantTheSame(t *testing.T) {
	unlimited := render(t, everyOption)
	limited := render(t, strings.Replace(everyOption, "controller:", "controller:\n  namespaces: [rbac-front, rbac-shop]", 1))
	texts := func(grants []grant) []string {
		var all []string
		for _, g := range grants {
			g.scope = ""
			all = append(all, g.String())
		}
		return all
	}
	everywhere := rules(t, limited, "ClusterRole", controllerName, "")
	inNamespace := rules(t, limited, "Role", "isthmus-controller-edges", "")
	half := inNamespace[:len(inNamespace)/2]
	assert.ElementsMatch(t, texts(half), texts(inNamespace[len(inNamespace)/2:]), "the same in both namespaces")
	assert.ElementsMatch(t, texts(rules(t, unlimited, "ClusterRole", controllerName, "")), append(texts(everywhere), texts(half)...))
	for _, g := range everywhere {
		assert.NotContains(t, []string{"secrets", "serviceaccounts/token", "pods", "rolebindings.rbac.authorization.k8s.io", "deployments.apps"}, g.resource)
	}
}
