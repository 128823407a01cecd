package injector

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/isthmus-mesh/isthmus/test/framework/istio"
	"github.com/isthmus-mesh/isthmus/webhook/inject"
	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

// firstPrefix makes a name sort before isthmus-injector.
const firstPrefix = "a-"

var (
	reinvoked  = istio.Injector{Tags: []string{prod}, Reinvocation: admissionregistrationv1.IfNeededReinvocationPolicy}
	sortsFirst = istio.Injector{Tags: []string{prod}, Prefix: firstPrefix}
	// injectsByDefault injects into every namespace that does not disable injection.
	injectsByDefault       = istio.Injector{Tags: []string{prod}, Values: namespacesByDefault}
	sortsFirstAndReinvoked = istio.Injector{Tags: []string{prod}, Prefix: firstPrefix, Reinvocation: admissionregistrationv1.IfNeededReinvocationPolicy, Values: namespacesByDefault}
	withCNI                = istio.Injector{Tags: []string{prod}, Values: map[string]string{"pilot.cni.enabled": "true"}}
)

var namespacesByDefault = map[string]string{"sidecarInjectorWebhook.enableNamespacesByDefault": "true"}

// podCheck checks the result for an edge that requests mode istio.
type podCheck func(pod *corev1.Pod, err error) error

// wantInitContainer checks that Istio's injector adds this init container.
func wantInitContainer(container string) podCheck {
	return func(pod *corev1.Pod, err error) error {
		if err == nil && !slices.Contains(containerNames(pod.Spec.InitContainers), container) {
			err = fmt.Errorf("its init containers are %q, without %s", containerNames(pod.Spec.InitContainers), container)
		}
		return err
	}
}

// wantDenial checks that Isthmus denies the pod with this message.
func wantDenial(message string) podCheck {
	return func(_ *corev1.Pod, err error) error {
		if err == nil || !strings.Contains(err.Error(), message) {
			return fmt.Errorf("want a denial that says %q, got %w", message, err)
		}
		return nil
	}
}

// reinstallInjector installs the injector of the default revision with other options, until
// the test ends. It returns when the API server, istiod and the webhook of Isthmus use them.
func reinstallInjector(t *testing.T, o istio.Injector, check podCheck) {
	t.Helper()
	t.Cleanup(func() {
		require.NoError(t, replaceInjector(context.WithoutCancel(t.Context()), *defaultInjector(""), wantInitContainer("istio-init")))
	})
	require.NoError(t, replaceInjector(t.Context(), o, check))
}

func replaceInjector(ctx context.Context, o istio.Injector, check podCheck) error {
	if err := env.Istiod.RemoveInjector(ctx); err != nil {
		return err
	}
	// Wait until the API server no longer calls the former one.
	if err := awaitPod(ctx, istioInjectionEnabled, otherPod, wantProxies(0)); err != nil {
		return err
	}
	if err := env.Istiod.InstallInjector(ctx, o); err != nil {
		return err
	}
	if err := awaitInjectors(ctx); err != nil {
		return err
	}
	tagCheck := check
	if o.Reinvocation == reinvoked.Reinvocation {
		tagCheck = wantInitContainer("istio-init") // whatever the order
	}
	return errors.Join(awaitEdge(ctx, nil, check), awaitEdge(ctx, keyValues{"istio.io/rev": prod}, tagCheck))
}

// awaitEdge waits until the webhook of Isthmus has seen what is installed.
func awaitEdge(ctx context.Context, namespace keyValues, check podCheck) (err error) {
	name, err := createNamespace(ctx, "", namespace, nil)
	if err != nil {
		return err
	}
	defer func() {
		err = errors.Join(err, env.Kube.CoreV1().Namespaces().Delete(context.WithoutCancel(ctx), name, metav1.DeleteOptions{}))
	}()
	return await(ctx, func(ctx context.Context) error {
		pod := modified(edgePod(), vendorAnnotations, optIn, withAnnotation("isthmus.dev/mode", "istio"))
		return check(env.Kube.CoreV1().Pods(name).Create(ctx, pod, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}}))
	})
}

func TestInjectorOfIstioIsReinvoked(t *testing.T) {
	reinstallInjector(t, reinvoked, wantInitContainer("istio-init"))
	for _, mode := range []string{"sidecar", "istio", "secret", "ambient"} {
		for _, namespace := range []string{"istio-injection=enabled", "istio.io/rev of a tag"} {
			t.Run(mode+" in "+namespace, func(t *testing.T) {
				sc := scenarios[namespace]
				// The injector is reinvoked because the API server mounts its token after
				// the first call.
				sc.reviews = 2
				testMode(t, mode, sc)
			})
		}
	}
}

// If Istio injects every namespace by default, it still leaves the edges of Isthmus alone.
func TestIstioInjectsEveryNamespaceByDefault(t *testing.T) {
	reinstallInjector(t, injectsByDefault, wantInitContainer("istio-init"))
	for mode := range assertByMode {
		t.Run(mode, func(t *testing.T) { testMode(t, mode, scenarios["without a label of Istio"]) })
	}
}

// runsFirstMessage is the reason why mode istio is refused when Istio's injector runs first.
const runsFirstMessage = "Istio's webhook configuration a-istio-sidecar-injector sorts before that of Isthmus, so its injector does not see the edit of Isthmus"

// Istio's injector runs first: it does not see what Isthmus adds, so mode istio is refused.
// The other modes do not depend on the order where Istio does not inject the edge.
func TestInjectorOfIstioRunsFirst(t *testing.T) {
	reinstallInjector(t, sortsFirst, wantDenial("sorts before that of Isthmus"))
	for _, mode := range []string{"sidecar", "secret", "ambient"} {
		t.Run(mode, func(t *testing.T) { testMode(t, mode, scenarios["without a label of Istio"]) })
		t.Run(mode+" with the annotations of the charts", func(t *testing.T) {
			ns := newNamespace(t, injectionEnabled.merge(istioInjectionEnabled), keyValues{"isthmus.dev/mode": mode})
			pod := modified(edgePod(), vendorAnnotations)
			got, err := ns.create(pod.DeepCopy())
			require.NoError(t, err)
			assert.Empty(t, ns.warnings.Drain())
			assertByMode[mode](t, expectation{submitted: pod, revision: "default"}, got)
		})
		t.Run(mode+" of a pod that Istio injected", func(t *testing.T) { assertInjectedByIstioAlone(t, mode, istioInjectionEnabled, byIstioMessage) })
	}
	t.Run("istio of a revision that runs after", func(t *testing.T) { testMode(t, "istio", scenarios["istio.io/rev of a revision"]) })
	t.Run("istio", func(t *testing.T) { assertModeIstioRefused(t, nil, istioInjectionEnabled) })
	t.Run("istio of a pod that Istio injected", func(t *testing.T) { assertInjectedByIstioAlone(t, "istio", istioInjectionEnabled, runsFirstMessage) })
}

// Istio's injector runs first and is reinvoked after a change: it is called again for the
// same pods, by the same selectors. The selector of all pods without a label no longer
// matches, because Isthmus adds a label.
func TestInjectorOfIstioRunsFirstAndIsReinvoked(t *testing.T) {
	reinstallInjector(t, sortsFirstAndReinvoked, wantDenial("sorts before that of Isthmus"))
	for _, namespace := range []string{"istio-injection=enabled", "istio.io/rev of a tag"} {
		t.Run("istio in "+namespace, func(t *testing.T) {
			sc := scenarios[namespace]
			sc.reviews = 2
			testMode(t, "istio", sc)
			ns := newNamespace(t, injectionEnabled.merge(sc.namespace), keyValues{"isthmus.dev/mode": "istio"})
			_, err := ns.apply(modified(edgePod(), vendorAnnotations, optIn))
			assert.NoError(t, err)
		})
	}
	t.Run("istio elsewhere", func(t *testing.T) { assertModeIstioRefused(t, nil) })
	t.Run("istio of a pod that Istio injected elsewhere", func(t *testing.T) { assertInjectedByIstioAlone(t, "istio", nil, runsFirstMessage) })
	t.Run("sidecar of a pod that Istio injected", func(t *testing.T) { assertInjectedByIstioAlone(t, "sidecar", istioInjectionEnabled, byIstioMessage) })
}

// Istio's injector sees what is already in the manifest, also when it runs first.
func TestInjectedManifestWhenTheInjectorOfIstioRunsFirst(t *testing.T) {
	reinstallInjector(t, sortsFirst, wantDenial("sorts before that of Isthmus"))
	engine, err := inject.New(inject.Options{Injector: func(string) (inject.Injector, error) {
		return inject.Injector{Configuration: "a-istio-sidecar-injector", RunsFirst: true}, nil
	}})
	require.NoError(t, err)
	ns := newNamespace(t, injectionEnabled, keyValues{"isthmus.dev/mode": "istio"})
	pod := modified(edgePod(), vendorAnnotations)
	result := engine.Inject(inject.Request{Pod: pod, Template: true, Namespace: policy.Namespace{
		Name: ns.name, Labels: injectionEnabled, Annotations: keyValues{"isthmus.dev/mode": "istio"},
	}})
	require.Equal(t, policy.Injected, result.Reason, result.Message)

	got, err := ns.create(patched(t, pod, result.Patch))

	require.NoError(t, err)
	assert.Empty(t, ns.warnings.Drain())
	assertIstio(t, expectation{submitted: pod, revision: "default"}, got)
}

// byIstioMessage is part of the warning about a sidecar that Istio's injector added.
const byIstioMessage = "added by Istio's injector (annotation sidecar.istio.io/status)"

// assertModeIstioRefused checks that mode istio is refused, with the reason, where Istio has
// not injected the pod.
func assertModeIstioRefused(t *testing.T, namespaceLabels ...keyValues) {
	t.Helper()
	for _, labels := range namespaceLabels {
		ns := newNamespace(t, injectionEnabled.merge(labels), keyValues{"isthmus.dev/mode": "istio"})
		_, err := ns.dryRun(modified(edgePod(), vendorAnnotations, optIn))
		require.ErrorContains(t, err, "conflict: "+runsFirstMessage)
		pod := modified(edgePod(), vendorAnnotations)
		got, err := ns.create(pod.DeepCopy())
		require.NoError(t, err)
		assertUnchanged(t, expectation{submitted: pod}, got)
		warned := ns.warnings.Drain()
		require.Len(t, warned, 1)
		assert.Contains(t, warned[0], runsFirstMessage)
	}
}

// assertInjectedByIstioAlone checks that a pod which Istio's injector injected before
// Isthmus saw it stays as it is, with a warning, and that it is denied if it requests
// Isthmus' injection itself.
func assertInjectedByIstioAlone(t *testing.T, mode string, labels keyValues, message string) {
	t.Helper()
	withoutIsthmus := newNamespace(t, labels, nil)
	want, err := withoutIsthmus.create(edgePod())
	require.NoError(t, err)
	require.NoError(t, wantProxies(1)(want))
	ns := newNamespace(t, injectionEnabled.merge(labels), keyValues{"isthmus.dev/mode": mode})
	_, err = ns.dryRun(modified(edgePod(), optIn))
	require.ErrorContains(t, err, "conflict: ")
	require.ErrorContains(t, err, message)
	ns.warnings.Drain()

	got, err := ns.create(edgePod())

	require.NoError(t, err)
	assert.Empty(t, differences(t, want, got))
	warned := ns.warnings.Drain()
	require.NotEmpty(t, warned)
	assert.Contains(t, warned[0], message)
}
