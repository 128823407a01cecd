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

// first sorts before isthmus-injector.
const first = "a-"

var (
	again  = istio.Injector{Tags: []string{prod}, Reinvocation: admissionregistrationv1.IfNeededReinvocationPolicy}
	before = istio.Injector{Tags: []string{prod}, Prefix: first}
	// everywhere injects into every namespace that does not say no.
	everywhere  = istio.Injector{Tags: []string{prod}, Values: byDefault}
	beforeAgain = istio.Injector{Tags: []string{prod}, Prefix: first, Reinvocation: admissionregistrationv1.IfNeededReinvocationPolicy, Values: byDefault}
	cni         = istio.Injector{Tags: []string{prod}, Values: map[string]string{"pilot.cni.enabled": "true"}}
)

var byDefault = map[string]string{"sidecarInjectorWebhook.enableNamespacesByDefault": "true"}

// seen judges what becomes of an edge that asks for mode istio.
type seen func(pod *corev1.Pod, err error) error

// served: Istio's injector adds this init container.
func served(container string) seen {
	return func(pod *corev1.Pod, err error) error {
		if err == nil && !slices.Contains(names(pod.Spec.InitContainers), container) {
			err = fmt.Errorf("its init containers are %q, without %s", names(pod.Spec.InitContainers), container)
		}
		return err
	}
}

// refused: Isthmus says why not.
func refused(because string) seen {
	return func(_ *corev1.Pod, err error) error {
		if err == nil || !strings.Contains(err.Error(), because) {
			return fmt.Errorf("want a denial that says %q, got %w", because, err)
		}
		return nil
	}
}

// reinstall installs the injector of the default revision in another way, until
// the test ends. It returns when the API server, istiod and our webhook know.
func reinstall(t *testing.T, o istio.Injector, until seen) {
	t.Helper()
	t.Cleanup(func() {
		require.NoError(t, exchange(context.WithoutCancel(t.Context()), *installed(""), served("istio-init")))
	})
	require.NoError(t, exchange(t.Context(), o, until))
}

func exchange(ctx context.Context, o istio.Injector, until seen) error {
	if err := chain.Istiod.RemoveInjector(ctx); err != nil {
		return err
	}
	// Until the API server has forgotten the former one.
	if err := awaitProbe(ctx, istioEnabled, other, proxies(0)); err != nil {
		return err
	}
	if err := chain.Istiod.InstallInjector(ctx, o); err != nil {
		return err
	}
	if err := awaitInjectors(ctx); err != nil {
		return err
	}
	ofTag := until
	if o.Reinvocation == again.Reinvocation {
		ofTag = served("istio-init") // whatever the order
	}
	return errors.Join(awaitEdge(ctx, nil, until), awaitEdge(ctx, keys{"istio.io/rev": prod}, ofTag))
}

// awaitEdge returns when our webhook has seen what is installed.
func awaitEdge(ctx context.Context, namespace keys, until seen) (err error) {
	name, err := createNamespace(ctx, "", namespace, nil)
	if err != nil {
		return err
	}
	defer func() {
		err = errors.Join(err, chain.Kube.CoreV1().Namespaces().Delete(context.WithoutCancel(ctx), name, metav1.DeleteOptions{}))
	}()
	return await(ctx, func(ctx context.Context) error {
		pod := changed(edge(), vendors, asks, annotated("isthmus.dev/mode", "istio"))
		return until(chain.Kube.CoreV1().Pods(name).Create(ctx, pod, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}}))
	})
}

func TestReinvocation(t *testing.T) {
	reinstall(t, again, served("istio-init"))
	for _, mode := range []string{"sidecar", "istio", "secret", "ambient"} {
		for _, where := range []string{"istio-injection=enabled", "istio.io/rev of a tag"} {
			t.Run(mode+" in "+where, func(t *testing.T) {
				place := places[where]
				// Once more since the API server mounted its token after it.
				place.calls = 2
				judgeAll(t, mode, place)
			})
		}
	}
}

// An Istio that injects into every namespace by itself leaves alone what Isthmus
// keeps for itself.
func TestInjectionByDefault(t *testing.T) {
	reinstall(t, everywhere, served("istio-init"))
	for mode := range judges {
		t.Run(mode, func(t *testing.T) { judgeAll(t, mode, places["without a word about Istio"]) })
	}
}

// runsFirst is why mode istio is refused behind another order.
const runsFirst = "Istio's webhook configuration a-istio-sidecar-injector sorts before that of Isthmus, so its injector does not see the edit of Isthmus"

// Istio's injector first: it does not see what Isthmus asks, so mode istio is
// refused. Nothing else depends on the order, where Istio leaves the edge alone.
func TestIstioFirst(t *testing.T) {
	reinstall(t, before, refused("sorts before that of Isthmus"))
	for _, mode := range []string{"sidecar", "secret", "ambient"} {
		t.Run(mode, func(t *testing.T) { judgeAll(t, mode, places["without a word about Istio"]) })
		t.Run(mode+" of the vendors", func(t *testing.T) {
			s := newSpace(t, enabled.with(istioEnabled), keys{"isthmus.dev/mode": mode})
			pod := changed(edge(), vendors)
			got, err := s.create(pod.DeepCopy())
			require.NoError(t, err)
			assert.Empty(t, s.warnings.Drain())
			judges[mode](t, outcome{before: pod, revision: "default"}, got)
		})
		t.Run(mode+" of what Istio took", func(t *testing.T) { judgeTaken(t, mode, istioEnabled, byIstio) })
	}
	t.Run("istio of a revision that runs after", func(t *testing.T) { judgeAll(t, "istio", places["istio.io/rev of a revision"]) })
	t.Run("istio", func(t *testing.T) { judgeRefused(t, nil, istioEnabled) })
	t.Run("istio of what Istio took", func(t *testing.T) { judgeTaken(t, "istio", istioEnabled, runsFirst) })
}

// Istio's injector first and again where something changed: it is asked again
// about the pods that it was asked about, by the same selectors. Those that take
// every pod without a label do not match any more, for Isthmus adds one.
func TestIstioFirstAndAgain(t *testing.T) {
	reinstall(t, beforeAgain, refused("sorts before that of Isthmus"))
	for _, where := range []string{"istio-injection=enabled", "istio.io/rev of a tag"} {
		t.Run("istio in "+where, func(t *testing.T) {
			place := places[where]
			place.calls = 2
			judgeAll(t, "istio", place)
			s := newSpace(t, enabled.with(place.namespace), keys{"isthmus.dev/mode": "istio"})
			_, err := s.apply(changed(edge(), vendors, asks))
			assert.NoError(t, err)
		})
	}
	t.Run("istio elsewhere", func(t *testing.T) { judgeRefused(t, nil) })
	t.Run("istio of what Istio took elsewhere", func(t *testing.T) { judgeTaken(t, "istio", nil, runsFirst) })
	t.Run("sidecar of what Istio took", func(t *testing.T) { judgeTaken(t, "sidecar", istioEnabled, byIstio) })
}

// What is in a manifest Istio's injector sees also when it runs first.
func TestInjectedManifestWhereIstioIsFirst(t *testing.T) {
	reinstall(t, before, refused("sorts before that of Isthmus"))
	engine, err := inject.New(inject.Options{Injector: func(string) (inject.Injector, error) {
		return inject.Injector{Configuration: "a-istio-sidecar-injector", RunsFirst: true}, nil
	}})
	require.NoError(t, err)
	s := newSpace(t, enabled, keys{"isthmus.dev/mode": "istio"})
	pod := changed(edge(), vendors)
	result := engine.Inject(inject.Request{Pod: pod, Template: true, Namespace: policy.Namespace{
		Name: s.name, Labels: enabled, Annotations: keys{"isthmus.dev/mode": "istio"},
	}})
	require.Equal(t, policy.Injected, result.Reason, result.Message)

	got, err := s.create(patched(t, pod, result.Patch))

	require.NoError(t, err)
	assert.Empty(t, s.warnings.Drain())
	judgeIstio(t, outcome{before: pod, revision: "default"}, got)
}

// byIstio is what is said of a sidecar that Istio's injector put there.
const byIstio = "put there by Istio's injector (annotation sidecar.istio.io/status)"

// judgeRefused: mode istio is refused by name where Istio has not taken the pod.
func judgeRefused(t *testing.T, places ...keys) {
	t.Helper()
	for _, where := range places {
		s := newSpace(t, enabled.with(where), keys{"isthmus.dev/mode": "istio"})
		_, err := s.dryRun(changed(edge(), vendors, asks))
		require.ErrorContains(t, err, "conflict: "+runsFirst)
		pod := changed(edge(), vendors)
		got, err := s.create(pod.DeepCopy())
		require.NoError(t, err)
		judgeUntouched(t, outcome{before: pod}, got)
		warned := s.warnings.Drain()
		require.Len(t, warned, 1)
		assert.Contains(t, warned[0], runsFirst)
	}
}

// judgeTaken: a pod that Istio's injector took before Isthmus saw it stays as
// Istio made it, with a warning; where it asked for itself it is denied.
func judgeTaken(t *testing.T, mode string, where keys, because string) {
	t.Helper()
	plain := newSpace(t, where, nil)
	want, err := plain.create(edge())
	require.NoError(t, err)
	require.NoError(t, proxies(1)(want))
	s := newSpace(t, enabled.with(where), keys{"isthmus.dev/mode": mode})
	_, err = s.dryRun(changed(edge(), asks))
	require.ErrorContains(t, err, "conflict: ")
	require.ErrorContains(t, err, because)
	s.warnings.Drain()

	got, err := s.create(edge())

	require.NoError(t, err)
	assert.Empty(t, differences(t, want, got))
	warned := s.warnings.Drain()
	require.NotEmpty(t, warned)
	assert.Contains(t, warned[0], because)
}
