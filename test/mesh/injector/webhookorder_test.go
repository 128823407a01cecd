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

// firstPrefix sorts before isthmus-injector.
const firstPrefix = "a-"

var (
	reinvoked  = istio.Injector{Tags: []string{prod}, Reinvocation: admissionregistrationv1.IfNeededReinvocationPolicy}
	sortsFirst = istio.Injector{Tags: []string{prod}, Prefix: firstPrefix}
	// injectsByDefault injects into every namespace that does not say no.
	injectsByDefault       = istio.Injector{Tags: []string{prod}, Values: namespacesByDefault}
	sortsFirstAndReinvoked = istio.Injector{Tags: []string{prod}, Prefix: firstPrefix, Reinvocation: admissionregistrationv1.IfNeededReinvocationPolicy, Values: namespacesByDefault}
	withCNI                = istio.Injector{Tags: []string{prod}, Values: map[string]string{"pilot.cni.enabled": "true"}}
)

var namespacesByDefault = map[string]string{"sidecarInjectorWebhook.enableNamespacesByDefault": "true"}

// podCheck judges what becomes of an edge that asks for mode istio.
type podCheck func(pod *corev1.Pod, err error) error

// wantInitContainer: Istio's injector adds this init container.
func wantInitContainer(container string) podCheck {
	return func(pod *corev1.Pod, err error) error {
		if err == nil && !slices.Contains(containerNames(pod.Spec.InitContainers), container) {
			err = fmt.Errorf("its init containers are %q, without %s", containerNames(pod.Spec.InitContainers), container)
		}
		return err
	}
}

// wantDenial: Isthmus says why not.
func wantDenial(message string) podCheck {
	return func(_ *corev1.Pod, err error) error {
		if err == nil || !strings.Contains(err.Error(), message) {
			return fmt.Errorf("want a denial that says %q, got %w", message, err)
		}
		return nil
	}
}

// reinstallInjector installs the injector of the default revision in another way, until
// the test ends. It returns when the API server, istiod and our webhook know.
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
	// Until the API server has forgotten the former one.
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

// awaitEdge returns when our webhook has seen what is installed.
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
		for _, where := range []string{"istio-injection=enabled", "istio.io/rev of a tag"} {
			t.Run(mode+" in "+where, func(t *testing.T) {
				sc := scenarios[where]
				// Once more since the API server mounted its token after it.
				sc.reviews = 2
				testMode(t, mode, sc)
			})
		}
	}
}

// An Istio that injects into every namespace by itself leaves alone what Isthmus
// keeps for itself.
func TestIstioInjectsEveryNamespaceByDefault(t *testing.T) {
	reinstallInjector(t, injectsByDefault, wantInitContainer("istio-init"))
	for mode := range assertByMode {
		t.Run(mode, func(t *testing.T) { testMode(t, mode, scenarios["without a word about Istio"]) })
	}
}

// runsFirstMessage is why mode istio is refused behind another order.
const runsFirstMessage = "Istio's webhook configuration a-istio-sidecar-injector sorts before that of Isthmus, so its injector does not see the edit of Isthmus"

// Istio's injector first: it does not see what Isthmus asks, so mode istio is
// refused. Nothing else depends on the order, where Istio leaves the edge alone.
func TestInjectorOfIstioRunsFirst(t *testing.T) {
	reinstallInjector(t, sortsFirst, wantDenial("sorts before that of Isthmus"))
	for _, mode := range []string{"sidecar", "secret", "ambient"} {
		t.Run(mode, func(t *testing.T) { testMode(t, mode, scenarios["without a word about Istio"]) })
		t.Run(mode+" of the vendors", func(t *testing.T) {
			ns := newNamespace(t, injectionEnabled.merge(istioInjectionEnabled), keyValues{"isthmus.dev/mode": mode})
			pod := modified(edgePod(), vendorAnnotations)
			got, err := ns.create(pod.DeepCopy())
			require.NoError(t, err)
			assert.Empty(t, ns.warnings.Drain())
			assertByMode[mode](t, expectation{submitted: pod, revision: "default"}, got)
		})
		t.Run(mode+" of what Istio took", func(t *testing.T) { assertInjectedByIstioAlone(t, mode, istioInjectionEnabled, byIstioMessage) })
	}
	t.Run("istio of a revision that runs after", func(t *testing.T) { testMode(t, "istio", scenarios["istio.io/rev of a revision"]) })
	t.Run("istio", func(t *testing.T) { assertModeIstioRefused(t, nil, istioInjectionEnabled) })
	t.Run("istio of what Istio took", func(t *testing.T) { assertInjectedByIstioAlone(t, "istio", istioInjectionEnabled, runsFirstMessage) })
}

// Istio's injector first and again where something changed: it is asked again
// about the pods that it was asked about, by the same selectors. Those that take
// every pod without a label do not match any more, for Isthmus adds one.
func TestInjectorOfIstioRunsFirstAndIsReinvoked(t *testing.T) {
	reinstallInjector(t, sortsFirstAndReinvoked, wantDenial("sorts before that of Isthmus"))
	for _, where := range []string{"istio-injection=enabled", "istio.io/rev of a tag"} {
		t.Run("istio in "+where, func(t *testing.T) {
			sc := scenarios[where]
			sc.reviews = 2
			testMode(t, "istio", sc)
			ns := newNamespace(t, injectionEnabled.merge(sc.namespace), keyValues{"isthmus.dev/mode": "istio"})
			_, err := ns.apply(modified(edgePod(), vendorAnnotations, optIn))
			assert.NoError(t, err)
		})
	}
	t.Run("istio elsewhere", func(t *testing.T) { assertModeIstioRefused(t, nil) })
	t.Run("istio of what Istio took elsewhere", func(t *testing.T) { assertInjectedByIstioAlone(t, "istio", nil, runsFirstMessage) })
	t.Run("sidecar of what Istio took", func(t *testing.T) { assertInjectedByIstioAlone(t, "sidecar", istioInjectionEnabled, byIstioMessage) })
}

// What is in a manifest Istio's injector sees also when it runs first.
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

// byIstioMessage is what is said of a sidecar that Istio's injector put there.
const byIstioMessage = "put there by Istio's injector (annotation sidecar.istio.io/status)"

// assertModeIstioRefused: mode istio is refused by name where Istio has not taken the pod.
func assertModeIstioRefused(t *testing.T, namespaceLabels ...keyValues) {
	t.Helper()
	for _, where := range namespaceLabels {
		ns := newNamespace(t, injectionEnabled.merge(where), keyValues{"isthmus.dev/mode": "istio"})
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

// assertInjectedByIstioAlone: a pod that Istio's injector took before Isthmus saw it stays as
// Istio made it, with a warning; where it asked for itself it is denied.
func assertInjectedByIstioAlone(t *testing.T, mode string, where keyValues, message string) {
	t.Helper()
	withoutIsthmus := newNamespace(t, where, nil)
	want, err := withoutIsthmus.create(edgePod())
	require.NoError(t, err)
	require.NoError(t, wantProxies(1)(want))
	ns := newNamespace(t, injectionEnabled.merge(where), keyValues{"isthmus.dev/mode": mode})
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
