package controller

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	jsonpatch "github.com/evanphx/json-patch/v5"
	"github.com/go-logr/logr/funcr"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	dynamicfake "k8s.io/client-go/dynamic/fake"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/isthmus-mesh/isthmus/internal/certs"
	"github.com/isthmus-mesh/isthmus/internal/events"
	"github.com/isthmus-mesh/isthmus/webhook/inject"
	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

// cluster reads pods of namespace edge and its Namespace from memory.
type cluster struct {
	client.Reader
	namespace *corev1.Namespace
	pods      []corev1.Pod
	lists     int
	// reads counts the pods that were read by name.
	reads int
	// listErr is the answer to a list of pods, and readErrs to the read of a pod by name.
	listErr  error
	readErrs map[string]error
}

func (c *cluster) Get(_ context.Context, key client.ObjectKey, o client.Object, _ ...client.GetOption) error {
	switch o := o.(type) {
	case *metav1.PartialObjectMetadata:
		if c.namespace != nil && key.Name == c.namespace.Name {
			o.ObjectMeta = c.namespace.ObjectMeta
			return nil
		}
	case *corev1.Pod:
		c.reads++
		if err := c.readErrs[key.Name]; err != nil {
			return err
		}
		for i := range c.pods {
			if c.pods[i].Name == key.Name {
				c.pods[i].DeepCopyInto(o)
				return nil
			}
		}
	}
	return apierrors.NewNotFound(corev1.Resource("objects"), key.Name)
}

func (c *cluster) List(_ context.Context, list client.ObjectList, _ ...client.ListOption) error {
	switch list := list.(type) {
	case *metav1.PartialObjectMetadataList:
		list.Items = nil
		for i := range c.pods {
			if isInjected(&c.pods[i]) {
				list.Items = append(list.Items, metav1.PartialObjectMetadata{ObjectMeta: c.pods[i].ObjectMeta})
			}
		}
	case *corev1.PodList:
		c.lists++
		list.Items = c.pods
		return c.listErr
	}
	return nil
}

// edges is a reconciler with the opted-in namespace edge.
type edges struct {
	*checker
	t       *testing.T
	ca      authority
	cluster *cluster
	stale   map[string][]StalePod
}

func newEdges(t *testing.T) *edges {
	t.Helper()
	ca := newAuthority(t)
	c := newChecker(t, ca)
	c.source.bundle = ca.bundle(t, "emissary", noon, noon.Add(24*time.Hour))
	e := &edges{checker: c, t: t, ca: ca, stale: map[string][]StalePod{}, cluster: &cluster{namespace: &corev1.Namespace{
		ObjectMeta: metav1.ObjectMeta{Name: "edge", Labels: map[string]string{policy.InjectionLabel: policy.InjectionEnabled}},
	}}}
	engine, err := inject.New(inject.Options{})
	require.NoError(t, err)
	o := c.Options.withDefaults()
	o.Engine, o.Ready = engine, func() error { return nil }
	o.Events = events.NewRecorder(nil, Name, ctrl.Log)
	o.ReportStale = func(namespace string, pods []StalePod) { e.stale[namespace] = pods }
	o.Dynamic = dynamicfake.NewSimpleDynamicClient(runtime.NewScheme())
	c.Options, c.rules = o, rulesOf(o)
	c.readNamespace, c.readNamespaceLive = NewNamespaceReader(e.cluster, o.Settings), NewNamespaceReader(e.cluster, o.Settings)
	c.cached, c.live = e.cluster, e.cluster
	return e
}

// edgePod returns a pod that an engine with this image of the sidecar injected.
func (e *edges) edgePod(name, image string) corev1.Pod {
	e.t.Helper()
	pod := e.injectedPod(corev1.PodSpec{ServiceAccountName: "emissary", Containers: []corev1.Container{{Name: "ambassador", Image: "docker.io/emissaryingress/emissary:4.1.0"}}}, image)
	pod.Name = name
	return pod
}

// injectedPod returns a pod with this spec that an engine with this image of the
// sidecar injected.
func (e *edges) injectedPod(spec corev1.PodSpec, image string) corev1.Pod {
	e.t.Helper()
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "edge", Name: "front", UID: "uid-1", CreationTimestamp: metav1.NewTime(noon.Add(-time.Minute))},
		Spec:       spec,
	}
	settings := inject.Settings{}
	settings.Mesh.ProxyImage = image
	engine, err := inject.New(inject.Options{Settings: settings})
	require.NoError(e.t, err)
	result := engine.Inject(inject.Request{Pod: pod, Namespace: policy.Namespace{Name: "edge", Labels: e.cluster.namespace.Labels}})
	require.Equal(e.t, policy.Injected, result.Reason, result.Message)
	patch, err := jsonpatch.DecodePatch(result.EncodedPatch)
	require.NoError(e.t, err)
	document, err := json.Marshal(pod)
	require.NoError(e.t, err)
	document, err = patch.Apply(document)
	require.NoError(e.t, err)
	injected := corev1.Pod{}
	require.NoError(e.t, json.Unmarshal(document, &injected))
	return injected
}

func (e *edges) reconcile() time.Duration {
	e.t.Helper()
	request := ctrl.Request{}
	request.Name = "edge"
	result, err := e.Reconcile(e.t.Context(), request)
	require.NoError(e.t, err)
	return result.RequeueAfter
}

func (e *edges) edgePods(state string) float64 {
	return testutil.ToFloat64(e.metrics.edgePods.With(prometheus.Labels{"namespace": "edge", "mode": "sidecar", "state": state}))
}

func TestReconcileWaitsForTheMesh(t *testing.T) {
	e := newEdges(t)
	e.Ready = func() error { return errors.New("not read yet") }
	assert.Equal(t, readyRetry, e.reconcile())
	assert.Zero(t, e.cluster.lists)
}

func TestReconcileServesTheFirstPod(t *testing.T) {
	e := newEdges(t)
	assert.Equal(t, 5*time.Minute, e.reconcile(), "the first scan counts from earlier")
	assert.Nil(t, e.store.secret)
	assert.Equal(t, 1, e.cluster.lists)

	e.cluster.pods = []corev1.Pod{e.edgePod("front", "")}
	assert.Equal(t, 5*time.Second, e.reconcile(), "the first nudge")
	assert.NotNil(t, e.store.secret)
	assert.Equal(t, 1, e.cluster.lists, "a new pod is read by itself")
	assert.InDelta(t, 1, e.edgePods(stateInjected), 0)
	assert.Empty(t, e.stale["edge"])

	e.clock.SetTime(noon.Add(10 * time.Minute))
	e.reconcile()
	assert.Equal(t, 2, e.cluster.lists, "a scan is due")
	assert.Equal(t, 1, e.source.asked)
	assert.Equal(t, 1, e.store.applies)
}

// An injected pod that claims nothing is read once between two scans.
func TestReconcileReadsAnIdlePodOnce(t *testing.T) {
	e := newEdges(t)
	e.reconcile()
	ended, invalid := e.edgePod("ended", ""), e.edgePod("invalid", "")
	ended.Status.Phase = corev1.PodSucceeded
	invalid.UID, invalid.Annotations[policy.SecretNameKey] = "uid-2", "theirs"
	e.cluster.pods = []corev1.Pod{ended, invalid}
	e.reconcile()
	e.reconcile()
	assert.Equal(t, 2, e.cluster.reads)
	assert.Zero(t, e.secrets)
}

func TestReconcileRescansWhenAnnotationsChange(t *testing.T) {
	e := newEdges(t)
	e.cluster.pods = []corev1.Pod{e.edgePod("front", "")}
	e.reconcile()
	e.clock.SetTime(noon.Add(time.Second))
	e.reconcile()
	require.Equal(t, 1, e.cluster.lists)

	e.cluster.namespace.Annotations = map[string]string{policy.DeliveryKey: "pigeon"}
	e.reconcile()
	assert.Equal(t, 2, e.cluster.lists, "the annotations changed")
	assert.Equal(t, 1, e.secrets, "the pod keeps its claim although they are invalid")
	e.reconcile()
	assert.Equal(t, 2, e.cluster.lists)
}

// While annotations are invalid the TLSContext stays as it is.
func TestReconcileLeavesTheTLSContextWhileAnnotationsAreInvalid(t *testing.T) {
	e := newEdges(t)
	o := newOwnedObject(e.checker)
	pod := e.edgePod("front", "")
	e.cluster.pods = []corev1.Pod{pod}
	e.cluster.namespace.Annotations = map[string]string{policy.TLSContextKey: "true"}
	e.reconcile()
	require.Equal(t, []string{"patch", "patch"}, o.requests)
	o.requests, o.current, o.keepCurrent = nil, &unstructured.Unstructured{Object: o.applied}, true

	e.cluster.namespace.Annotations[policy.DeliveryKey] = "pigeon"
	e.reconcile()
	assert.Empty(t, o.requests)

	o.requests, e.cluster.namespace.Annotations = nil, nil
	e.reconcile()
	assert.Equal(t, []string{"get", "delete", "get", "delete"}, o.requests)
}

// A new leader that cannot tell yet whose Secret it is takes nothing away.
func TestNewLeaderLeavesTheTLSContextUntilTheHolderIsKnown(t *testing.T) {
	front := func(e *edges) corev1.Pod { return e.edgePod("front", "") }
	for name, test := range map[string]struct {
		pod  func(*edges) corev1.Pod
		hide func(*edges)
	}{
		"if the mesh's roots are unknown, expect no request": {front, func(e *edges) {
			e.Roots = rootsFunc(func() ([]*x509.Certificate, error) { return nil, errors.New("not read yet") })
		}},
		"if the only edge is invalid, expect no request": {func(e *edges) corev1.Pod {
			pod := e.edgePod("front", "")
			pod.Annotations[policy.SecretNameKey] = "theirs"
			return pod
		}, func(*edges) {}},
	} {
		t.Run(name, func(t *testing.T) {
			e := newEdges(t)
			o := newOwnedObject(e.checker)
			labels := map[string]string{policy.ManagedByLabel: policy.ManagedBy}
			for _, name := range contextNames([]string{"istio-upstream"}) {
				e.contexts.put(foundContext{namespace: "edge", name: name, ids: []string{"default"}, isManaged: true, content: content{labels: labels}})
			}
			o.setCurrent(labels)
			e.store.roots = &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "edge", Name: "istio-certs-roots", Labels: labels}}
			e.cluster.pods = []corev1.Pod{test.pod(e)}
			e.cluster.namespace.Annotations = map[string]string{policy.TLSContextKey: "true"}
			test.hide(e)
			for i := range 3 {
				e.clock.SetTime(noon.Add(time.Duration(i) * 10 * time.Minute))
				e.reconcile()
			}
			assert.Equal(t, 3, e.cluster.lists)
			assert.Empty(t, o.requests)
			assert.NotNil(t, e.store.roots)
			assert.NotContains(t, e.contexts.wide, "edge")

			e.cluster.pods = nil
			e.reconcile()
			assert.Equal(t, []string{"get", "delete", "get"}, o.requests, "there is no edge any more")
		})
	}
}

func TestReconcileReportsStaleAndMissingPods(t *testing.T) {
	e := newEdges(t)
	missing := e.edgePod("missing", "")
	missing.UID, missing.Labels, missing.Annotations = "uid-2", nil, nil
	missing.Spec = corev1.PodSpec{ServiceAccountName: "emissary", Containers: []corev1.Container{{Name: "ambassador", Image: "docker.io/emissaryingress/emissary:4.1.0"}}}
	e.cluster.pods = []corev1.Pod{e.edgePod("front", "docker.io/istio/proxyv2:1.20.0"), missing}
	e.reconcile()
	if assert.Len(t, e.stale["edge"], 1) {
		assert.Equal(t, "front", e.stale["edge"][0].Pod.Name)
		assert.NotEmpty(t, e.stale["edge"][0].Template)
	}
	assert.InDelta(t, 1, e.edgePods(stateStale), 0)
	assert.InDelta(t, 1, e.edgePods(stateMissing), 0)
}

// A list of the pods that fails changes nothing that is known of them.
func TestReconcileRemembersThePodsWhenAListFails(t *testing.T) {
	e := newEdges(t)
	ended := e.edgePod("ended", "")
	ended.UID, ended.Status.Phase = "uid-2", corev1.PodSucceeded
	e.cluster.pods = []corev1.Pod{e.edgePod("front", "docker.io/istio/proxyv2:1.20.0"), ended}
	e.reconcile()
	s := e.reconciler.state("edge")
	before := s.podState
	require.Len(t, before.stale, 1)
	require.Len(t, before.idle, 1)

	e.clock.SetTime(noon.Add(10 * time.Minute))
	e.cluster.listErr = errors.New("the server is overloaded")
	request := ctrl.Request{}
	request.Name = "edge"
	_, err := e.Reconcile(t.Context(), request)
	require.ErrorContains(t, err, "the server is overloaded")
	assert.Equal(t, before, s.podState)
}

// A list of the pods that fails, or one pod that cannot be read, does not keep the Secrets
// of the others from their checks.
func TestReconcileRenewsWhenPodsCannotBeRead(t *testing.T) {
	for name, test := range map[string]struct {
		fail func(*edges)
		want string
	}{
		"if the list fails, expect renewal": {
			fail: func(e *edges) { e.cluster.listErr = errors.New("cannot decode") }, want: "list the pods of namespace edge: cannot decode",
		},
		"if a new pod cannot be read, expect renewal": {
			fail: func(e *edges) {
				broken := e.edgePod("a-broken", "")
				broken.UID = "uid-3"
				e.cluster.pods = append(e.cluster.pods, broken)
				e.cluster.readErrs = map[string]error{"a-broken": errors.New("forbidden")}
			}, want: "read pod edge/a-broken: forbidden",
		},
	} {
		t.Run(name, func(t *testing.T) {
			e := newEdges(t)
			e.cluster.pods = []corev1.Pod{e.edgePod("front", "")}
			e.reconcile()
			require.Equal(t, 1, e.store.applies)

			test.fail(e)
			second := e.edgePod("second", "")
			second.UID = "uid-2"
			e.cluster.pods = append(e.cluster.pods, second)
			e.clock.SetTime(noon.Add(23 * time.Hour))
			if e.cluster.listErr == nil {
				e.reconciler.state("edge").scanned = e.clock.Now()
			}
			e.source.bundle = e.ca.bundle(t, "emissary", noon.Add(23*time.Hour), noon.Add(47*time.Hour))
			_, err := e.Reconcile(t.Context(), ctrl.Request{NamespacedName: client.ObjectKey{Name: "edge"}})
			require.ErrorContains(t, err, test.want)
			assert.Len(t, e.reconciler.state("edge").claims, 2, "the other new pod is served")
			assert.Equal(t, noon.Add(47*time.Hour), e.reconciler.state("edge").secrets["istio-certs"].notAfter)
		})
	}
}

// A new leader knows no pods while their list fails, so it takes nothing away.
func TestReconcileDoesNothingBeforeTheFirstList(t *testing.T) {
	e := newEdges(t)
	e.cluster.pods = []corev1.Pod{e.edgePod("front", "")}
	e.cluster.listErr = errors.New("cannot decode")
	_, err := e.Reconcile(t.Context(), ctrl.Request{NamespacedName: client.ObjectKey{Name: "edge"}})
	require.EqualError(t, err, "list the pods of namespace edge: cannot decode")
	assert.Nil(t, e.store.secret)
	assert.Empty(t, e.reconciler.state("edge").applied)
}

// What was said of a pod without a claim is not said again at the next scan.
func TestReconcileReportsAnInvalidPodOnce(t *testing.T) {
	e := newEdges(t)
	invalid := e.edgePod("invalid", "")
	invalid.Annotations[policy.SecretNameKey] = "theirs"
	e.cluster.pods = []corev1.Pod{invalid}
	recorded := 0
	e.reconciler.state("edge").events = events.NewOnce(func(events.Event) { recorded++ })
	for i := range 4 {
		e.clock.SetTime(noon.Add(time.Duration(i) * 10 * time.Minute))
		e.reconcile()
	}
	assert.Equal(t, 4, e.cluster.lists)
	assert.Equal(t, 1, recorded)
}

func TestReconcileKeepsTheSecretOfANamedServiceAccount(t *testing.T) {
	e := newEdges(t)
	e.cluster.namespace.Annotations = map[string]string{policy.ServiceAccountKey: "emissary"}
	assert.Equal(t, interval, e.reconcile())
	assert.NotNil(t, e.store.secret)
}

func TestReconcileReleasesANamespaceAfterItsLastPod(t *testing.T) {
	e := newEdges(t)
	e.cluster.pods = []corev1.Pod{e.edgePod("front", "docker.io/istio/proxyv2:1.20.0")}
	e.reconcile()
	require.NotNil(t, e.store.secret)
	require.NotEmpty(t, e.stale["edge"])

	e.cluster.namespace = nil // the cache holds opted-in namespaces only
	assert.Zero(t, e.reconcile())
	assert.NotNil(t, e.store.secret, "the pod still needs it")

	e.cluster.pods = nil
	assert.Zero(t, e.reconcile())
	assert.Nil(t, e.store.secret)
	assert.Empty(t, e.stale["edge"])
	assert.Zero(t, testutil.CollectAndCount(e.metrics.edgePods))
	assert.Empty(t, e.knownNamespaces())
	assert.Zero(t, e.secrets)
}

// A source that has lost its settings cannot remove what it created. That is said of a
// Secret of that source alone, and keeps nothing else from being removed.
func TestReconcileReleasesANamespaceOfASourceThatIsNotConfigured(t *testing.T) {
	for source, want := range map[policy.Source][]string{policy.CertManager: {EventLeftBehind}, policy.IstioCA: nil} {
		e := newEdges(t)
		e.Settings.SecretNames = []string{"istio-certs"}
		e.former.removeErr = fmt.Errorf("no issuer: %w", certs.ErrNotConfigured)
		var recorded []string
		e.Events = events.NewRecorder(nil, Name, funcr.New(func(_, line string) {
			for _, word := range strings.Fields(strings.ReplaceAll(line, `"`, " ")) {
				if word == EventLeftBehind {
					recorded = append(recorded, word)
				}
			}
		}, funcr.Options{}))
		e.store.secret = e.ca.secretOf(t, e.source.bundle, source, noon)
		e.cluster.namespace = nil
		assert.Zero(t, e.reconcile())
		assert.Nil(t, e.store.secret)
		assert.Equal(t, want, recorded, source)
	}
}

func TestReconcileForgetsAnUnclaimedSecretAndLeavesIt(t *testing.T) {
	e := newEdges(t)
	e.cluster.pods = []corev1.Pod{e.edgePod("front", "")}
	e.reconcile()
	require.Equal(t, 1, e.secrets)
	e.cluster.pods = nil
	e.reconcile()
	assert.Zero(t, e.secrets)
	assert.NotNil(t, e.store.secret, "the next pod will find it")
}

func TestExcludedNamespacesAreNotOptedIn(t *testing.T) {
	c := &cluster{namespace: &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "kube-system", Labels: map[string]string{policy.InjectionLabel: policy.InjectionEnabled}}}}
	_, enabled, err := NewNamespaceReader(c, inject.Settings{})(t.Context(), "kube-system")
	require.NoError(t, err)
	assert.False(t, enabled, "the webhook's defaults hold")
	c.namespace.Name = "edge"
	_, enabled, err = NewNamespaceReader(c, inject.Settings{ExcludedNamespaces: []string{"edge"}})(t.Context(), "edge")
	require.NoError(t, err)
	assert.False(t, enabled, "it is excluded")
	_, enabled, err = NewNamespaceReader(c, inject.Settings{})(t.Context(), "edge")
	require.NoError(t, err)
	assert.True(t, enabled)
	c.namespace.DeletionTimestamp = &metav1.Time{Time: noon}
	_, enabled, err = NewNamespaceReader(c, inject.Settings{})(t.Context(), "edge")
	require.NoError(t, err)
	assert.False(t, enabled, "it is being deleted")
	_, enabled, err = NewNamespaceReader(c, inject.Settings{})(t.Context(), "other")
	require.NoError(t, err)
	assert.False(t, enabled, "there is none")
}

// A changed Secret, and one that belongs to it, are read again at once; the
// reconciliation after that has the normal priority.
func TestReconcileDealsWithChangedSecrets(t *testing.T) {
	e := newEdges(t)
	e.cluster.pods = []corev1.Pod{e.edgePod("front", "")}
	var requeues int
	e.versions.start(func(namespace string, _ time.Duration) {
		assert.Equal(t, "edge", namespace)
		requeues++
	})
	e.reconcile()
	require.Equal(t, 1, e.store.applies)
	e.versions.announce("edge", "istio-certs", e.store.secret.ResourceVersion)
	assert.Zero(t, requeues, "its own write")

	require.Equal(t, 1, e.store.rootsApplies)
	e.versions.announce("edge", "istio-certs-roots", "")
	e.store.secret, e.store.roots = nil, nil
	e.versions.announce("edge", "istio-certs", "")
	assert.Equal(t, 2, requeues)
	result, err := e.Reconcile(t.Context(), ctrl.Request{NamespacedName: client.ObjectKey{Name: "edge"}})
	require.NoError(t, err)
	assert.Equal(t, 0, *result.Priority)
	assert.Equal(t, 2, e.store.applies)
	assert.Equal(t, 2, e.store.rootsApplies)
	assert.Empty(t, e.versions.changed("edge"))
	assert.Equal(t, 1, testutil.CollectAndCount(e.metrics.repairs))
}

// The cache knows neither a pod that was created a moment ago nor a label that came
// back: nothing is removed until the API server agrees.
func TestNothingIsRemovedWhileTheCacheIsBehind(t *testing.T) {
	e := newEdges(t)
	pod := e.edgePod("front", "")
	e.cluster.pods = []corev1.Pod{pod}
	e.reconcile()
	require.NotNil(t, e.store.secret)

	behind := &cluster{}
	e.readNamespace, e.cached = NewNamespaceReader(behind, e.Settings), behind
	assert.Zero(t, e.reconcile())
	assert.NotNil(t, e.store.secret, "the namespace has its label again")

	e.cluster.namespace.Labels = nil
	assert.Zero(t, e.reconcile())
	assert.NotNil(t, e.store.secret, "the pod is not in the cache")

	e.cluster.pods = nil
	assert.Zero(t, e.reconcile())
	assert.Nil(t, e.store.secret)
}
