package mesh

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	certificatesv1beta1 "k8s.io/api/certificates/v1beta1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	fakediscovery "k8s.io/client-go/discovery/fake"
	ktesting "k8s.io/client-go/testing"
	"sigs.k8s.io/controller-runtime/pkg/manager"

	"github.com/isthmus-mesh/isthmus/patches"
	"github.com/isthmus-mesh/isthmus/test/framework/certtest"
)

var (
	_ manager.Runnable               = &Roots{}
	_ manager.LeaderElectionRunnable = &Roots{}
)

// startRoots runs Roots until the test ends and asserts that Start then returns.
// changes counts the calls of a handler.
func startRoots(t *testing.T, o RootsOptions) (r *Roots, changes *atomic.Int32) {
	t.Helper()
	r, err := NewRoots(o)
	require.NoError(t, err)
	changes = &atomic.Int32{}
	r.OnChange(func() { changes.Add(1) })
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.Start(ctx) }()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-done:
			assert.NoError(t, err)
		case <-time.After(10 * time.Second):
			t.Error("Start did not return")
		}
	})
	return r, changes
}

func newRootConfigMap(text string) *corev1.ConfigMap {
	return &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Namespace: DefaultNamespace, Name: "istio-ca-root-cert"},
		Data:       map[string]string{keyRoots: text},
	}
}

func joinPEM(pairs ...*certtest.Pair) string {
	var all strings.Builder
	for _, p := range pairs {
		all.Write(p.CertificatePEM)
	}
	return all.String()
}

// hasRoots reports whether Roots returns exactly the wanted roots.
func hasRoots(r *Roots, want ...*certtest.Pair) bool {
	got, err := r.Roots()
	return err == nil && len(got) == len(want) && !slices.ContainsFunc(want, func(p *certtest.Pair) bool {
		return !slices.ContainsFunc(got, func(c *x509.Certificate) bool { return c.Equal(p.Certificate) })
	})
}

func TestRootsKeepTheLastGoodOnes(t *testing.T) {
	one, two := certtest.NewAuthority(t), certtest.NewAuthority(t)
	c, log := newCluster(newRootConfigMap(joinPEM(one))), &logLines{}
	r, changes := startRoots(t, RootsOptions{Client: c, Log: log.logger()})
	eventually(t, "the roots are read", func() bool { return hasRoots(r, one) })
	require.True(t, r.HasSynced())
	assert.NoError(t, r.Err())
	eventually(t, "the handler is called", func() bool { return changes.Load() == 1 })

	c.set(t, "istio-ca-root-cert", keyRoots, joinPEM(one, two))
	eventually(t, "both roots are read", func() bool { return hasRoots(r, one, two) })
	c.set(t, "istio-ca-root-cert", keyRoots, "what is good before a mistake\n"+joinPEM(two, one, two))
	c.set(t, "istio-ca-root-cert", keyRoots, joinPEM(one)+"-----BEGIN CERTIFICATE-----\nMII")
	eventually(t, "the mistake is seen", func() bool { return r.Err() != nil })
	assert.ErrorContains(t, r.Err(), "ConfigMap istio-system/istio-ca-root-cert root-cert.pem: ")
	assert.ErrorContains(t, r.Err(), "truncated or damaged")
	assert.True(t, hasRoots(r, one, two), "the last good ones are kept")

	c.set(t, "istio-ca-root-cert", "another", "value")
	require.NoError(t, c.CoreV1().ConfigMaps(DefaultNamespace).Delete(t.Context(), "istio-ca-root-cert", metav1.DeleteOptions{}))
	eventually(t, "the deletion is seen", func() bool {
		return errorText(r.Err()) == "ConfigMap istio-system/istio-ca-root-cert does not exist"
	})
	assert.True(t, hasRoots(r, one, two))
	assert.Equal(t, 1, log.count("truncated or damaged"), "%s", log.all)
	assert.Equal(t, 2, log.count("the last good ones are used"), "%s", log.all)

	_, err := c.CoreV1().ConfigMaps(DefaultNamespace).Create(t.Context(), newRootConfigMap(joinPEM(two, one)), metav1.CreateOptions{})
	require.NoError(t, err)
	eventually(t, "the error is gone", func() bool { return r.Err() == nil })
	assert.Equal(t, int32(2), changes.Load(), "the same roots in another order are no change")
	assert.Equal(t, 1, log.count("can be read again"))
}

func TestRootsLeaveOutWhatCannotBeRead(t *testing.T) {
	one, two, three := certtest.NewAuthority(t), certtest.NewAuthority(t), certtest.NewAuthority(t)
	const unreadable = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
	c, log := newCluster(newRootConfigMap(joinPEM(one)+unreadable+joinPEM(two))), &logLines{}
	r, changes := startRoots(t, RootsOptions{Client: c, Log: log.logger()})
	eventually(t, "both good roots are read", func() bool { return hasRoots(r, one, two) })
	const where = "ConfigMap istio-system/istio-ca-root-cert root-cert.pem: "
	assert.EqualError(t, r.Err(), where+"block 2 of 3: certificate 1: x509: malformed certificate")
	assert.Equal(t, 1, log.count("some of the mesh's roots cannot be read"), "%s", log.all)

	c.set(t, "istio-ca-root-cert", keyRoots, unreadable+joinPEM(three))
	eventually(t, "a root beside the unreadable one is read", func() bool { return hasRoots(r, one, two, three) })
	assert.EqualError(t, r.Err(), where+"block 1 of 2: certificate 1: x509: malformed certificate", "either of the others may be the unreadable one")

	c.set(t, "istio-ca-root-cert", keyRoots, unreadable)
	eventually(t, "the mistake is seen", func() bool { return strings.HasPrefix(errorText(r.Err()), where+"block 1 of 1: ") })
	assert.True(t, hasRoots(r, one, two, three))

	c.set(t, "istio-ca-root-cert", keyRoots, joinPEM(three))
	eventually(t, "what is not there any more is gone", func() bool { return hasRoots(r, three) })
	assert.NoError(t, r.Err())
	assert.Equal(t, int32(3), changes.Load())
}

func TestRootsOfMeshConfigAreAdded(t *testing.T) {
	one, two, three := certtest.NewAuthority(t), certtest.NewAuthority(t), certtest.NewAuthority(t)
	config := func(roots ...string) string {
		text := "trustDomain: cluster.local\ncaCertificates:\n"
		for _, pem := range roots {
			text += "- pem: |\n    " + strings.ReplaceAll(pem, "\n", "\n    ") + "\n"
		}
		return text
	}
	// The watch of one name would get both objects from the same fake API server.
	c := newCluster(&corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Namespace: DefaultNamespace, Name: "istio"},
		Data:       map[string]string{keyMesh: config(joinPEM(two))},
	})
	w := startWatcher(t, Options{Client: c})
	r, changes := startRoots(t, RootsOptions{Client: newCluster(newRootConfigMap(joinPEM(one))), Mesh: w.SharedMesh, Extra: w.ExtraRoots})
	eventually(t, "both roots are read", func() bool { return hasRoots(r, one, two) })
	assert.Equal(t, int32(1), changes.Load(), "both are known from the beginning")
	published, err := r.Published()
	require.NoError(t, err)
	assert.Equal(t, []*x509.Certificate{one.Certificate}, published)

	c.set(t, "istio", keyMesh, config(joinPEM(two, three)))
	eventually(t, "a new root is added", func() bool { return hasRoots(r, one, two, three) })
	c.set(t, "istio", keyMesh, config(joinPEM(two), "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----"))
	eventually(t, "the mistake is seen", func() bool { return r.Err() != nil })
	assert.EqualError(t, r.Err(), "ConfigMap istio-system/istio mesh.caCertificates[1].pem: block 1 of 1: certificate 1: x509: malformed certificate")
	assert.True(t, hasRoots(r, one, two, three), "the last good ones are kept")

	c.set(t, "istio", keyMesh, "trustDomain: cluster.local\n")
	eventually(t, "the roots are removed with the setting", func() bool { return hasRoots(r, one) && r.Err() == nil })
}

func TestExtraRootsAreThoseOfAllRevisions(t *testing.T) {
	one, two := certtest.NewAuthority(t), certtest.NewAuthority(t)
	plane := func(revision string, pem string) ControlPlane {
		quoted, err := json.Marshal(pem)
		require.NoError(t, err)
		return ControlPlane{Namespace: DefaultNamespace, Revision: revision, MeshConfig: &corev1.ConfigMap{
			ObjectMeta: metav1.ObjectMeta{Namespace: DefaultNamespace, Name: objectName("istio", revision)},
			Data: map[string]string{keyMesh: `{"caCertificates": [{"pem": ` + string(quoted) + `, "trustDomains": ["elsewhere"]},
				{"spiffeBundleUrl": "https://spire.example/bundle"}]}`},
		}}
	}
	state := (&meshState{namespace: DefaultNamespace}).next(map[string]ControlPlane{"": plane("", joinPEM(one)), "canary": plane("canary", joinPEM(two, one))}, injectors{})
	assert.ElementsMatch(t, []*x509.Certificate{one.Certificate, two.Certificate}, state.extraRoots)
	assert.NoError(t, state.extraRootsErr)

	settings, err := state.settings("canary")
	require.NoError(t, err)
	assert.Contains(t, settings.Warnings, "ConfigMap istio-system/istio-canary mesh.caCertificates[1].spiffeBundleUrl is not read: put the roots of https://spire.example/bundle into pem")
	described := strings.Join(settings.Describe(), "\n")
	assert.Contains(t, described, "caCertificates=CN=test root, serial ")
	assert.Contains(t, described, "(ConfigMap istio-system/istio-canary mesh.caCertificates)")
}

// configWithRoots is a ConfigMap with a MeshConfig that has these extra roots.
func configWithRoots(t *testing.T, revision string, roots ...*certtest.Pair) *corev1.ConfigMap {
	t.Helper()
	config := map[string]any{"trustDomain": "cluster.local"}
	if len(roots) > 0 {
		config["caCertificates"] = []map[string]string{{"pem": joinPEM(roots...)}}
	}
	text, err := json.Marshal(config)
	require.NoError(t, err)
	return &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Namespace: DefaultNamespace, Name: objectName("istio", revision)}, Data: map[string]string{keyMesh: string(text)},
	}
}

func TestExtraRootsOutliveTheirObject(t *testing.T) {
	one, two := certtest.NewAuthority(t), certtest.NewAuthority(t)
	injector := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: DefaultNamespace, Name: injectorName}, Data: map[string]string{keyValues: "{}"}}
	broken := configWithRoots(t, "")
	broken.Data[keyMesh] = "trustDomain: [broken"
	plane := func(revision string, config *corev1.ConfigMap) ControlPlane {
		return ControlPlane{Namespace: DefaultNamespace, Revision: revision, Injector: injector, MeshConfig: config}
	}
	type planes = map[string]ControlPlane
	with, none, gone := plane("", configWithRoots(t, "", one)), plane("", configWithRoots(t, "")), plane("", nil)
	const wantErr = "ConfigMap istio-system/istio does not exist: the roots that its mesh.caCertificates had stay in use until it is back"
	tests := map[string]struct {
		steps   []planes
		want    []*certtest.Pair
		wantErr string
	}{
		"if the ConfigMap is gone, expect the roots":                {[]planes{{"": with}, {"": gone}}, []*certtest.Pair{one}, wantErr},
		"if it stays away, expect the roots":                        {[]planes{{"": with}, {"": gone}, {"": gone}}, []*certtest.Pair{one}, wantErr},
		"if all of Istio is gone, expect the roots":                 {[]planes{{"": with}, {}, {}}, []*certtest.Pair{one}, wantErr},
		"if the injector comes back first, expect the roots":        {[]planes{{"": with}, {}, {"": gone}}, []*certtest.Pair{one}, wantErr},
		"if the ConfigMap comes back invalid, expect the roots":     {[]planes{{"": with}, {"": gone}, {"": plane("", broken)}}, []*certtest.Pair{one}, "ConfigMap istio-system/istio mesh: "},
		"if it comes back with other roots, expect those":           {[]planes{{"": with}, {}, {"": plane("", configWithRoots(t, "", two))}}, []*certtest.Pair{two}, ""},
		"if it comes back without roots, expect none":               {[]planes{{"": with}, {"": gone}, {"": none}}, nil, ""},
		"if there never were roots, expect no error":                {[]planes{{"": none}, {"": gone}, {}}, nil, ""},
		"if one of two revisions is gone, expect the other's roots": {[]planes{{"": with, "canary": plane("canary", configWithRoots(t, "canary", two))}, {"": with}}, []*certtest.Pair{one}, ""},
		"if one of two revisions has lost its ConfigMap, expect the roots of both": {
			[]planes{{"": with, "canary": plane("canary", configWithRoots(t, "canary", two))}, {"": gone, "canary": plane("canary", configWithRoots(t, "canary", two))}}, []*certtest.Pair{one, two}, wantErr,
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			state := &meshState{namespace: DefaultNamespace}
			for _, planes := range test.steps {
				state = state.next(planes, injectors{})
			}
			var want []*x509.Certificate
			for _, pair := range test.want {
				want = append(want, pair.Certificate)
			}
			assert.ElementsMatch(t, want, state.extraRoots)
			if test.wantErr == "" {
				assert.NoError(t, state.extraRootsErr)
				return
			}
			assert.ErrorContains(t, state.extraRootsErr, test.wantErr)
		})
	}
}

func TestRootsOutliveMeshConfig(t *testing.T) {
	one, two := certtest.NewAuthority(t), certtest.NewAuthority(t)
	c := newCluster(configWithRoots(t, "", two))
	w := startWatcher(t, Options{Client: c})
	r, changes := startRoots(t, RootsOptions{Client: newCluster(newRootConfigMap(joinPEM(one))), Mesh: w.SharedMesh, Extra: w.ExtraRoots})
	eventually(t, "both roots are read", func() bool { return hasRoots(r, one, two) })
	configMaps := c.CoreV1().ConfigMaps(DefaultNamespace)
	require.NoError(t, configMaps.Delete(t.Context(), "istio", metav1.DeleteOptions{}))
	eventually(t, "the loss is seen", func() bool { return r.Err() != nil })
	assert.ErrorContains(t, r.Err(), "ConfigMap istio-system/istio does not exist")
	assert.True(t, hasRoots(r, one, two), "the last good ones are kept")
	_, err := configMaps.Create(t.Context(), configWithRoots(t, "", two), metav1.CreateOptions{})
	require.NoError(t, err)
	eventually(t, "the ConfigMap is read", func() bool { return r.Err() == nil })
	assert.True(t, hasRoots(r, one, two))
	assert.Equal(t, int32(1), changes.Load(), "no Secret is written")
}

func TestRootsAreMissingAtFirst(t *testing.T) {
	one := certtest.NewAuthority(t)
	c, log := newCluster(), &logLines{}
	r, changes := startRoots(t, RootsOptions{Client: c, Log: log.logger()})
	eventually(t, "the answer is there", r.HasSynced)
	_, err := r.Roots()
	assert.EqualError(t, err, "ConfigMap istio-system/istio-ca-root-cert does not exist")
	assert.Zero(t, changes.Load())
	assert.Equal(t, 1, log.count("cannot be read, and there are no earlier ones"))

	_, err = c.CoreV1().ConfigMaps(DefaultNamespace).Create(t.Context(), newRootConfigMap(joinPEM(one)), metav1.CreateOptions{})
	require.NoError(t, err)
	eventually(t, "the roots are read", func() bool { return hasRoots(r, one) })
	assert.NoError(t, r.Err())
}

// denyGet makes every get of a ConfigMap fail until the returned function is called.
func denyGet(c *fakeCluster, err error) (allow func()) {
	var allowed atomic.Bool
	c.PrependReactor("get", "configmaps", func(ktesting.Action) (bool, runtime.Object, error) {
		return !allowed.Load(), nil, err
	})
	return func() { allowed.Store(true) }
}

func TestRootsForbidden(t *testing.T) {
	one := certtest.NewAuthority(t)
	c := newCluster(newRootConfigMap(joinPEM(one)))
	allow := denyGet(c, forbidden("configmaps"))
	r, _ := startRoots(t, RootsOptions{Client: c})
	eventually(t, "the refusal is seen", r.HasSynced)
	_, err := r.Roots()
	assert.ErrorContains(t, err, "ConfigMap istio-system/istio-ca-root-cert: ")
	assert.ErrorContains(t, err, "no role says so")

	allow()
	eventually(t, "the roots are read", func() bool { return hasRoots(r, one) })
	assert.NoError(t, r.Err())
}

func TestRootsUnreachable(t *testing.T) {
	one := certtest.NewAuthority(t)
	c := newCluster(newRootConfigMap(joinPEM(one)))
	requests := make(chan struct{}, 100)
	allow := denyGet(c, errors.New("connection refused"))
	c.PrependReactor("get", "configmaps", func(ktesting.Action) (bool, runtime.Object, error) {
		requests <- struct{}{}
		return false, nil, nil
	})
	r, _ := startRoots(t, RootsOptions{Client: c})
	<-requests
	<-requests
	assert.False(t, r.HasSynced(), "without an answer it is unknown whether there are roots")
	_, err := r.Roots()
	assert.EqualError(t, err, "the mesh's root certificates have not been read yet")
	assert.NoError(t, r.Err())

	allow()
	eventually(t, "the roots are read", func() bool { return hasRoots(r, one) })
}

// fakeSettings holds mesh settings that a test can change.
type fakeSettings struct {
	mu   sync.Mutex
	mesh patches.Mesh
	err  error
}

func (s *fakeSettings) Mesh() (patches.Mesh, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mesh, s.err
}

func (s *fakeSettings) set(mesh patches.Mesh, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mesh, s.err = mesh, err
}

// serveBundles makes the fake API server serve ClusterTrustBundles.
func (c *fakeCluster) serveBundles(t *testing.T) {
	t.Helper()
	api, ok := c.Discovery().(*fakediscovery.FakeDiscovery)
	require.True(t, ok)
	api.Fake.Lock()
	defer api.Fake.Unlock()
	api.Resources = []*metav1.APIResourceList{
		{GroupVersion: "certificates.k8s.io/v1", APIResources: []metav1.APIResource{{Name: "certificatesigningrequests"}}},
		{GroupVersion: "certificates.k8s.io/v1beta1", APIResources: []metav1.APIResource{{Name: "clustertrustbundles"}}},
	}
}

func TestRootsMoveToABundle(t *testing.T) {
	one, two := certtest.NewAuthority(t), certtest.NewAuthority(t)
	bundle := &certificatesv1beta1.ClusterTrustBundle{
		ObjectMeta: metav1.ObjectMeta{Name: "istio.io:istiod-ca:root-cert"},
		Spec:       certificatesv1beta1.ClusterTrustBundleSpec{TrustBundle: joinPEM(two)},
	}
	c, s := newCluster(newRootConfigMap(joinPEM(one)), bundle), &fakeSettings{err: errSettingsNotRead}
	c.serveBundles(t)
	r, changes := startRoots(t, RootsOptions{Client: c, Mesh: s.Mesh})
	_, err := r.Roots()
	require.EqualError(t, err, "the mesh's root certificates have not been read yet")

	s.set(patches.Mesh{}, nil)
	eventually(t, "the ConfigMap is read", func() bool { return hasRoots(r, one) })
	s.set(patches.Mesh{}, errors.New("istio is gone"))
	s.set(patches.Mesh{RootClusterTrustBundle: bundle.Name}, nil)
	eventually(t, "the bundle is read", func() bool { return hasRoots(r, two) })
	assert.Equal(t, int32(2), changes.Load())

	bundle = bundle.DeepCopy()
	bundle.Spec.TrustBundle = "none"
	_, err = c.CertificatesV1beta1().ClusterTrustBundles().Update(t.Context(), bundle, metav1.UpdateOptions{})
	require.NoError(t, err)
	eventually(t, "the mistake is seen", func() bool { return r.Err() != nil })
	assert.EqualError(t, r.Err(), "ClusterTrustBundle istio.io:istiod-ca:root-cert trustBundle: want at least one certificate in PEM, got none")
	assert.True(t, hasRoots(r, two))
}

func TestRootsWithoutBundles(t *testing.T) {
	one := certtest.NewAuthority(t)
	c, s := newCluster(newRootConfigMap(joinPEM(one))), &fakeSettings{mesh: patches.Mesh{RootClusterTrustBundle: "ours"}}
	r, _ := startRoots(t, RootsOptions{Client: c, Mesh: s.Mesh})
	eventually(t, "the answer is there", r.HasSynced)
	assert.EqualError(t, r.Err(), "ClusterTrustBundle ours: the API server has no ClusterTrustBundles")
	s.set(patches.Mesh{}, nil)
	eventually(t, "the ConfigMap is read", func() bool { return hasRoots(r, one) })
	assert.NoError(t, r.Err())
}

func TestRootsWithoutSettings(t *testing.T) {
	s := &fakeSettings{err: errors.New(`istio revision "blue" is not installed`)}
	r, _ := startRoots(t, RootsOptions{Client: newCluster(), Mesh: s.Mesh})
	eventually(t, "the error shows", r.HasSynced)
	_, err := r.Roots()
	assert.EqualError(t, err, `cannot find the mesh's roots: istio revision "blue" is not installed`)
}

func TestNewRootsRefusesBadOptions(t *testing.T) {
	_, err := NewRoots(RootsOptions{})
	assert.EqualError(t, err, "mesh roots: no client given")
}
