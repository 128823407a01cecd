package discovery

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	jsonpatch "github.com/evanphx/json-patch/v5"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/isthmus-mesh/isthmus/internal/mesh"
	"github.com/isthmus-mesh/isthmus/patches"
	"github.com/isthmus-mesh/isthmus/test/framework/controlplane"
	"github.com/isthmus-mesh/isthmus/webhook/inject"
	"github.com/isthmus-mesh/isthmus/webhook/policy"
)

// chart returns the directory of Istio's own chart istio-discovery.
func chart(t *testing.T) string {
	t.Helper()
	command := exec.CommandContext(t.Context(), "go", "-C", "../../tools/pilot", "mod", "download", "-json", "istio.io/istio")
	command.Stderr = os.Stderr
	out, err := command.Output()
	require.NoError(t, err)
	var module struct{ Dir string }
	require.NoError(t, json.Unmarshal(out, &module))
	return filepath.Join(module.Dir, "manifests", "charts", "istio-control", "istio-discovery")
}

// upgrade renders Istio's chart with values, as "path=value", and applies the objects
// that these tests need: the two ConfigMaps, istiod's Deployment, and the
// configurations of the injector and of the tags. They are deleted with the test.
func (i *istio) upgrade(t *testing.T, revision string, values ...string) {
	t.Helper()
	helm, err := controlplane.Tool(t.Context(), "helm")
	require.NoError(t, err)
	arguments := []string{"template", "istiod", chart(t), "--namespace", i.namespace, "--set", "global.istioNamespace=" + i.namespace}
	if revision != "" {
		arguments = append(arguments, "--set", "revision="+revision)
	}
	for _, value := range values {
		arguments = append(arguments, "--set", value)
	}
	for _, template := range []string{"configmap", "istiod-injector-configmap", "deployment", "mutatingwebhook", "revision-tags-mwc"} {
		arguments = append(arguments, "--show-only", "templates/"+template+".yaml")
	}
	command := exec.CommandContext(t.Context(), helm, arguments...)
	command.Stderr = os.Stderr
	rendered, err := command.Output()
	require.NoError(t, err)
	api, err := client.New(admin, client.Options{})
	require.NoError(t, err)
	for _, o := range decode(t, rendered) {
		object, ok := o.(client.Object)
		require.True(t, ok)
		apply(t, api, object)
	}
}

// apply creates the object or updates the existing one.
func apply(t *testing.T, api client.Client, object client.Object) {
	t.Helper()
	before, err := api.Scheme().New(object.GetObjectKind().GroupVersionKind())
	require.NoError(t, err)
	existing := before.(client.Object)
	err = api.Get(t.Context(), client.ObjectKeyFromObject(object), existing)
	if err == nil {
		object.SetResourceVersion(existing.GetResourceVersion())
		require.NoError(t, api.Update(t.Context(), object))
		return
	}
	require.NoError(t, client.IgnoreNotFound(err))
	require.NoError(t, api.Create(t.Context(), object))
	t.Cleanup(func() {
		assert.NoError(t, client.IgnoreNotFound(api.Delete(context.WithoutCancel(t.Context()), object)))
	})
}

// removeTag removes a tag as `istioctl tag remove` does.
func (i *istio) removeTag(t *testing.T, tag string) {
	t.Helper()
	hooks := i.admin.AdmissionregistrationV1().MutatingWebhookConfigurations()
	list, err := hooks.List(t.Context(), metav1.ListOptions{LabelSelector: "istio.io/tag=" + tag})
	require.NoError(t, err)
	require.Len(t, list.Items, 1)
	require.NoError(t, hooks.Delete(t.Context(), list.Items[0].Name, metav1.DeleteOptions{}))
}

// blue and green are values of two control planes that differ in everything that the
// revision of a pod determines.
var (
	blue  = []string{"global.hub=docker.io/istio", "global.tag=1.30.2", "meshConfig.trustDomain=blue.example.org"}
	green = []string{
		"global.hub=registry.example.org/istio", "global.tag=1.31.1", "meshConfig.trustDomain=green.example.org",
		"global.caAddress=ca.green.example.org:443", "sidecarInjectorWebhook.reinvocationPolicy=IfNeeded",
	}
)

// sidecarSettings are the settings of a revision in an injected pod.
type sidecarSettings struct{ image, ca, trustDomain string }

// injectPod injects a pod with the settings that the watcher has.
func injectPod(t *testing.T, engine *inject.Engine, podLabels, namespaceLabels map[string]string) (sidecarSettings, inject.Result) {
	t.Helper()
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "edge", Labels: podLabels, Annotations: map[string]string{policy.InjectKey: "true"}},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "emissary", Image: "docker.io/emissaryingress/emissary:3.9.1"}}},
	}
	result := engine.Inject(inject.Request{Pod: pod, Namespace: policy.Namespace{Name: "edge", Labels: namespaceLabels}})
	if result.Denied {
		return sidecarSettings{}, result
	}
	require.Equal(t, policy.Injected, result.Reason, result.Message)
	raw, err := json.Marshal(pod)
	require.NoError(t, err)
	patch, err := jsonpatch.DecodePatch(result.EncodedPatch)
	require.NoError(t, err)
	raw, err = patch.Apply(raw)
	require.NoError(t, err)
	injected := &corev1.Pod{}
	require.NoError(t, json.Unmarshal(raw, injected))
	for _, c := range injected.Spec.InitContainers {
		if c.Name != "istio-proxy" {
			continue
		}
		env := make(map[string]string)
		for _, e := range c.Env {
			env[e.Name] = e.Value
		}
		return sidecarSettings{c.Image, env["CA_ADDR"], env["TRUST_DOMAIN"]}, result
	}
	require.Fail(t, "no istio-proxy in the pod")
	return sidecarSettings{}, result
}

// TestRevisionsAndTags installs two revisions with Istio's own chart, and moves
// and removes a tag while a watcher runs with the chart's permissions.
func TestRevisionsAndTags(t *testing.T) {
	i := newIstio(t)
	i.grant(t)
	i.grantInCluster(t)
	i.upgrade(t, "blue", append(blue, "revisionTags={default,prod}")...)
	i.upgrade(t, "green", green...)
	w := start(t, i.webhook(t), i.namespace)
	engine, err := inject.New(inject.Options{Mesh: w.Mesh, Injector: w.Injector})
	require.NoError(t, err)
	ofBlue := sidecarSettings{"docker.io/istio/proxyv2:1.30.2", "istiod-blue." + i.namespace + ".svc:15012", "blue.example.org"}
	ofGreen := sidecarSettings{"registry.example.org/istio/proxyv2:1.31.1", "ca.green.example.org:443", "green.example.org"}
	rev := func(revision string) map[string]string { return map[string]string{"istio.io/rev": revision} }

	for name, tt := range map[string]struct {
		pod, namespace map[string]string
		want           sidecarSettings
	}{
		"neither names a revision":        {want: ofBlue},
		"the namespace names a revision":  {namespace: rev("green"), want: ofGreen},
		"the namespace names a tag":       {namespace: rev("prod"), want: ofBlue},
		"the namespace names the default": {namespace: rev("default"), want: ofBlue},
		"the pod names a revision":        {pod: rev("green"), want: ofGreen},
		"the pod names a tag":             {pod: rev("prod"), want: ofBlue},
		"the pod overrides the namespace": {pod: rev("green"), namespace: rev("prod"), want: ofGreen},
	} {
		got, result := injectPod(t, engine, tt.pod, tt.namespace)
		assert.Equal(t, tt.want, got, "%s: %s", name, result.Message)
	}

	for requested, want := range map[string]inject.Injector{
		"":        {Configuration: "istio-revision-tag-default-" + i.namespace},
		"default": {Configuration: "istio-revision-tag-default-" + i.namespace},
		"prod":    {Configuration: "istio-revision-tag-prod-" + i.namespace},
		"blue":    {Configuration: "istio-sidecar-injector-blue-" + i.namespace},
		"green":   {Configuration: "istio-sidecar-injector-green-" + i.namespace, Reinvoked: true},
	} {
		got, err := w.Injector(requested)
		require.NoError(t, err)
		assert.Equal(t, want, got, requested)
	}
	_, err = w.Injector("red")
	assert.EqualError(t, err, `no injector of Istio serves revision or tag "red", only default (istio-revision-tag-default-`+i.namespace+
		"), blue (istio-sidecar-injector-blue-"+i.namespace+"), green (istio-sidecar-injector-green-"+i.namespace+
		"), prod (istio-revision-tag-prod-"+i.namespace+"): name one of these with label istio.io/rev")

	// The canary becomes the default: the chart's upgrade moves the tag.
	i.upgrade(t, "green", append(green, "revisionTags={default}")...)
	eventually(t, "the tag has moved", func() bool { return trustDomain(w, "") == "green.example.org" })
	got, _ := injectPod(t, engine, nil, nil)
	assert.Equal(t, ofGreen, got)
	got, _ = injectPod(t, engine, nil, rev("prod"))
	assert.Equal(t, ofBlue, got, "the other tag stays")

	i.removeTag(t, "default")
	eventually(t, "the tag is gone", func() bool { _, err := w.Mesh(""); return err != nil })
	_, result := injectPod(t, engine, nil, nil)
	assert.True(t, result.Denied)
	assert.Contains(t, result.Message, "istio in namespace "+i.namespace+" has the revisions blue, green and no default one; its tags are prod (revision blue): "+
		"name one of them with label istio.io/rev, or set the tag default")
	assert.NoError(t, w.Ready(), "an ambiguous revision does not make the webhook unready")
	got, _ = injectPod(t, engine, nil, rev("green"))
	assert.Equal(t, ofGreen, got, "a pod that names a revision is not affected")

	// The command line sees the same.
	found, err := mesh.Discover(t.Context(), i.admin, i.namespace, patches.Mesh{Revision: "prod"})
	require.NoError(t, err)
	s, err := found.Settings("")
	require.NoError(t, err)
	assert.Equal(t, "blue", s.Mesh.Revision)
	assert.Equal(t, "tag prod of MutatingWebhookConfiguration istio-revision-tag-prod-"+i.namespace, s.Sources["revision"])
}

// TestTagDefaultBesideTheDefaultRevision has the cluster that istioctl and Helm leave
// after a revision took over from the default one.
func TestTagDefaultBesideTheDefaultRevision(t *testing.T) {
	i := newIstio(t)
	i.grant(t)
	i.grantInCluster(t)
	i.upgrade(t, "", blue...)
	w := start(t, i.webhook(t), i.namespace)
	assert.Equal(t, "blue.example.org", trustDomain(w, ""))
	injector, err := w.Injector("")
	require.NoError(t, err)
	configurationName := "istio-sidecar-injector-" + i.namespace
	assert.Equal(t, inject.Injector{Configuration: configurationName}, injector)

	// As with `istioctl tag set default --revision green`, which deactivates the other
	// configuration (DeactivateIstioInjectionWebhook in istioctl/pkg/tag).
	hooks := i.admin.AdmissionregistrationV1().MutatingWebhookConfigurations()
	configuration, err := hooks.Get(t.Context(), configurationName, metav1.GetOptions{})
	require.NoError(t, err)
	never := &metav1.LabelSelector{MatchLabels: map[string]string{"istio.io/deactivated": "never-match"}}
	for n := range configuration.Webhooks {
		configuration.Webhooks[n].NamespaceSelector, configuration.Webhooks[n].ObjectSelector = never, never
	}
	_, err = hooks.Update(t.Context(), configuration, metav1.UpdateOptions{})
	require.NoError(t, err)
	eventually(t, "no injector is left", func() bool { _, err := w.Injector(""); return err != nil })
	i.upgrade(t, "green", append(green, "revisionTags={default}")...)
	eventually(t, "the tag applies", func() bool { return trustDomain(w, "") == "green.example.org" })
	eventually(t, "the tag's injector is seen", func() bool {
		injector, err := w.Injector("")
		return err == nil && injector == inject.Injector{Configuration: "istio-revision-tag-default-" + i.namespace, Reinvoked: true}
	})
	assert.Equal(t, "green.example.org", trustDomain(w, "default"))
	assert.Equal(t, "green.example.org", trustDomain(w, "green"))

	i.removeTag(t, "default")
	eventually(t, "the default revision applies again", func() bool { return trustDomain(w, "") == "blue.example.org" })
	_, err = w.Injector("")
	assert.ErrorContains(t, err, "no injector of Istio serves pods that name no revision, only green (istio-sidecar-injector-green-")
}

// TestInjectorThatRunsFirst gives Istio's configuration a name that sorts before
// Isthmus', as some operators do.
func TestInjectorThatRunsFirst(t *testing.T) {
	i := newIstio(t)
	i.grant(t)
	i.grantInCluster(t)
	i.upgrade(t, "", blue...)
	w := start(t, i.webhook(t), i.namespace)
	hooks := i.admin.AdmissionregistrationV1().MutatingWebhookConfigurations()
	copied, err := hooks.Get(t.Context(), "istio-sidecar-injector-"+i.namespace, metav1.GetOptions{})
	require.NoError(t, err)
	copied.ObjectMeta = metav1.ObjectMeta{Name: "acme-" + copied.Name, Labels: copied.Labels}
	api, err := client.New(admin, client.Options{})
	require.NoError(t, err)
	copied.SetGroupVersionKind(admissionv1.SchemeGroupVersion.WithKind("MutatingWebhookConfiguration"))
	apply(t, api, copied)
	want := inject.Injector{Configuration: copied.Name, RunsFirst: true}
	eventually(t, "the injector that runs first is named", func() bool { got, err := w.Injector(""); return err == nil && got == want })
}
